"""Text sets of graphs become what torch_geometric makes of them; files that do not agree are refused."""

from __future__ import annotations

import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from caudal.core.errors import UnreadableFile
from caudal.data.byte_file import LocalFile
from caudal.data.sample_files import number_table, tu
from caudal.data.sample_files.base import Part
from caudal.data.sample_files.tu import TuReader

READER = TuReader()
# Three nodes and two; edges of the first graph, then of the second.
SET = {
    "A": ["1, 2", "2, 1", "2, 3", "4, 5"],
    "graph_indicator": ["1", "1", "1", "2", "2"],
    "graph_labels": ["1", "-1"],
}


def write(folder: Path, files: Mapping[str, list[str]], end: str = "\n") -> Path:
    for name, lines in files.items():
        (folder / f"S_{name}.txt").write_bytes("".join(line + end for line in lines).encode())
    return folder / "S_A.txt"


def arrays_for(part: Part, block: int) -> dict[str, np.ndarray]:
    first, last = (int(part.ends[block - 1]) if block else 0), int(part.ends[block])
    counts = {name: int(rows[first:last].sum()) for name, rows in part.rows.items()}
    return {
        f.name: np.full((counts.get(f.name, last - first), *f.row_shape), 77, f.dtype) for f in part.fields
    }


def read_all(path: Path) -> tuple[Part, dict[str, np.ndarray]]:
    file = LocalFile(path)
    part = READER.part(file, whole=False)
    blocks = [arrays_for(part, block) for block in range(len(part.ends))]
    for block, into in enumerate(blocks):
        READER.read(file, part, block, into)
    return part, {name: np.concatenate([into[name] for into in blocks]) for name in blocks[0]}


def assert_as_torch_geometric(folder: Path, name: str) -> Part:
    """Their edges are sorted and made unique, ours lie as in the file."""
    io = pytest.importorskip("torch_geometric.io")
    coalesce = pytest.importorskip("torch_geometric.utils").coalesce
    torch = pytest.importorskip("torch")
    part, values = read_all(folder / f"{name}_A.txt")
    data, slices, _sizes = io.read_tu_data(str(folder), name)
    np.testing.assert_array_equal(values["x"], data.x.numpy())
    np.testing.assert_array_equal(np.cumsum(part.rows["x"]), slices["x"].numpy()[1:])
    np.testing.assert_array_equal(values["y"], data.y.numpy())
    starts = np.repeat(np.cumsum(part.rows["x"]) - part.rows["x"], part.rows["edges"])
    ours = torch.from_numpy((values["edges"] + starts[:, None]).T)
    ours, attributes = coalesce(ours, torch.from_numpy(values["edge_attr"]), len(values["x"]))
    theirs = data.edge_index.numpy() + np.repeat(
        slices["x"].numpy()[:-1], np.diff(slices["edge_index"].numpy())
    )
    np.testing.assert_array_equal(ours.numpy(), theirs)
    np.testing.assert_array_equal(attributes.numpy(), data.edge_attr.numpy())
    return part


def test_a_real_set_is_what_torch_geometric_reads(data_dir: Path) -> None:
    part = assert_as_torch_geometric(data_dir / "graph_aids_tu", "AIDS")
    assert part.samples == 2000
    assert len(part.ends) > 1
    assert part.ends.max(initial=0, where=np.diff(part.ends, prepend=0) > 1000) == 0


@pytest.mark.parametrize("fast", [True, False])
def test_labels_of_several_columns_and_targets_that_are_numbers_are_as_torch_geometric_reads_them(
    tmp_path: Path, fast: bool
) -> None:
    more = {
        "node_labels": ["3,0", "5,1", "3,0", "4,0", "3,1"],
        "node_attributes": ["0.5", "1e-3", "-2", "+4", ".25"],
        "edge_labels": ["2", "-1", "0", "2"],
        "edge_attributes": ["1, 2", "3, 4", "5, 6", "7, 8"],
        "graph_attributes": ["0.25", "3"],
    }
    write(tmp_path, SET | more)
    with mock.patch.object(number_table, "parse_fast", number_table.parse_fast if fast else lambda *_: None):
        part = assert_as_torch_geometric(tmp_path, "S")
    assert [(f.name, f.dtype.name, f.shape) for f in part.fields] == [
        ("x", "float32", (None, 1 + 3 + 2)),
        ("edges", "int64", (None, 2)),
        ("edge_attr", "float32", (None, 2 + 4)),
        ("y", "float32", ()),
    ]
    assert "S_graph_labels.txt" in part.left_out[0]


def test_class_labels_are_numbered_in_their_order(tmp_path: Path) -> None:
    part, values = read_all(write(tmp_path, SET))
    assert values["y"].tolist() == [1, 0]
    assert part.fields[-1].categories == ("-1", "1")


def test_labels_may_be_those_of_nodes(tmp_path: Path) -> None:
    part, values = read_all(write(tmp_path, SET | {"graph_labels": ["7", "7", "0", "7", "0"]}))
    assert part.fields[-1].shape == (None,)
    assert values["y"].tolist() == [1, 1, 0, 1, 0]
    assert part.rows["y"].tolist() == [3, 2]


def test_several_labels_of_a_graph_are_a_vector(tmp_path: Path) -> None:
    part, values = read_all(write(tmp_path, SET | {"graph_labels": ["0, 4", "4, 4"]}))
    assert part.fields[-1].shape == (2,)
    assert values["y"].tolist() == [[0, 1], [1, 1]]


def test_a_set_without_features_and_labels_gives_each_node_a_one(tmp_path: Path) -> None:
    part, values = read_all(write(tmp_path, {k: SET[k] for k in ("A", "graph_indicator")}))
    assert values.keys() == {"x", "edges"}
    assert values["x"].tolist() == [[1]] * 5
    assert "no features of nodes" in part.left_out[0]


def test_a_graph_may_have_no_nodes_and_a_set_no_edges(tmp_path: Path) -> None:
    part, values = read_all(write(tmp_path, {"A": [""], "graph_indicator": ["1", "3", "3"]}))
    assert part.rows["x"].tolist() == [1, 0, 2]
    assert values["edges"].shape == (0, 2)


def test_edges_in_any_order_are_read_in_the_order_of_graphs(tmp_path: Path) -> None:
    files = SET | {"A": ["4, 5", "1, 2", "5, 4", "2, 3"], "edge_labels": ["0", "1", "2", "3"]}
    part, values = read_all(write(tmp_path, files))
    assert part.ends.tolist() == [2]
    assert part.rows["edges"].tolist() == [2, 2]
    assert values["edges"].tolist() == [[0, 1], [1, 2], [0, 1], [1, 0]]
    assert values["edge_attr"].argmax(1).tolist() == [1, 3, 0, 2]


@st.composite
def graph_sets(draw: st.DrawFn) -> dict[str, Any]:
    """For each graph: rows of node attributes, node labels, edges with attributes and labels, and a class."""
    columns = draw(st.integers(0, 2))
    number = st.floats(-1e5, 1e5, width=32)
    graphs = []
    for _ in range(draw(st.integers(1, 7))):
        nodes = draw(st.integers(1, 4))
        end = st.integers(0, nodes - 1)
        edges = draw(st.lists(st.tuples(end, end, number, st.integers(-2, 2)), max_size=4))
        x = [[draw(number) for _ in range(columns)] for _ in range(nodes)]
        graphs.append((x, draw(st.lists(st.integers(3, 6), min_size=nodes, max_size=nodes)), edges))
    return {
        "graphs": graphs,
        "classes": draw(st.lists(st.integers(-3, 3), min_size=len(graphs), max_size=len(graphs))),
        "shuffle": draw(st.none() | st.randoms(use_true_random=False)),
    }


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    made=graph_sets(),
    piece_bytes=st.sampled_from([64, 200, 1 << 20]),
    block_bytes=st.sampled_from([1, 300, 1 << 20]),
    end=st.sampled_from(["\n", "\r\n", " \n"]),
    last_end=st.booleans(),
)
def test_graphs_come_back_as_written(
    tmp_path: Path, made: dict[str, Any], piece_bytes: int, block_bytes: int, end: str, last_end: bool
) -> None:
    for old in tmp_path.glob("*.txt"):
        old.unlink()
    graphs, classes = made["graphs"], made["classes"]
    nodes = [len(x) for x, _labels, _edges in graphs]
    starts = np.cumsum(nodes) - nodes
    edges = [(g, *edge) for g, (_x, _labels, ours) in enumerate(graphs) for edge in ours]
    if made["shuffle"]:
        made["shuffle"].shuffle(edges)
    labels = [label for _x, ours, _edges in graphs for label in ours]
    files = {
        "A": [f"{u + starts[g] + 1}, {v + starts[g] + 1}" for g, u, v, _a, _l in edges] or [""],
        "graph_indicator": [str(g + 1) for g, count in enumerate(nodes) for _ in range(count)],
        "graph_labels": [str(label) for label in classes],
        "node_labels": [str(label) for label in labels],
    }
    rows = [row for x, _labels, _edges in graphs for row in x]
    if rows[0]:
        files["node_attributes"] = [", ".join(map(repr, row)) for row in rows]
    if edges:
        files["edge_attributes"] = [repr(attribute) for _g, _u, _v, attribute, _l in edges]
        files["edge_labels"] = [str(label) for *_others, label in edges]
    path = write(tmp_path, files, end)
    if not last_end:
        for file in tmp_path.glob("*.txt"):
            file.write_bytes(file.read_bytes().removesuffix(end.encode()) or b" ")
    with (
        mock.patch.object(number_table, "PIECE_BYTES", piece_bytes),
        mock.patch.object(tu, "_BLOCK_BYTES", block_bytes),
    ):
        part, values = read_all(path)
    edges.sort(key=lambda edge: edge[0])
    ordered = not made["shuffle"]
    if block_bytes == 1 and ordered:
        assert part.ends.tolist() == list(range(1, len(graphs) + 1))
    np.testing.assert_array_equal(part.rows["x"], nodes)
    np.testing.assert_array_equal(part.rows["edges"], [len(ours) for _x, _labels, ours in graphs])
    hot = np.eye(max(labels) - min(labels) + 1)[np.array(labels) - min(labels)]
    x = np.concatenate([np.array(rows, np.float32).reshape(len(rows), -1), hot], axis=1)
    np.testing.assert_array_equal(values["x"], x)
    np.testing.assert_array_equal(values["edges"], np.array([edge[1:3] for edge in edges]).reshape(-1, 2))
    if edges:
        np.testing.assert_array_equal(values["edge_attr"][:, 0], np.array([e[3] for e in edges], np.float32))
        np.testing.assert_array_equal(
            values["edge_attr"][:, 1:].argmax(1), [e[4] - min(d[4] for d in edges) for e in edges]
        )
    assert values["y"].tolist() == [sorted(set(classes)).index(label) for label in classes]


numeral = st.one_of(
    st.integers(-(2**70), 2**70).map(str),
    st.floats().map(repr),
    st.sampled_from(
        ["", " ", "+1", "-", "1e400", "NaN", "-Infinity", "1.", ".5", "0x1", "1 2", '"1"', "007", "1e"]
    ),
)


@settings(max_examples=300)
@given(
    st.lists(st.lists(numeral, min_size=1, max_size=3).map(",".join), min_size=1, max_size=4),
    st.sampled_from([np.dtype(np.int64), np.dtype(np.float64)]),
)
@example(["1, 2", "3, 4"], np.dtype(np.int64))
@example(["1e400"], np.dtype(np.float64))
def test_the_fast_parser_reads_what_the_plain_one_reads(rows: list[str], dtype: np.dtype[Any]) -> None:
    text = "".join(row + "\n" for row in rows).encode()
    columns = rows[0].count(",") + 1
    fast = number_table.parse_fast(text, columns, dtype)
    if fast is not None and text.strip() and not text.translate(None, number_table.NUMBER_TEXT):
        plain = number_table.parse(text, columns, dtype)
        assert plain is not None
        np.testing.assert_array_equal(fast, plain)
        assert fast.dtype == plain.dtype


def test_the_fast_parser_is_the_one_at_work() -> None:
    pytest.importorskip("pyarrow")
    assert number_table.parse_fast(b"1, 2\n3, 4\n", 2, np.dtype(np.int64)).tolist() == [[1, 2], [3, 4]]
    assert number_table.parse_fast(b"1, nan\n", 2, np.dtype(np.float64))[0, 0] == 1


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        (
            {"A": ["1, 2", "2, 6"]},
            "S_A.txt cannot be read: line 2 joins node 2 with node 6, but there are 5 nodes",
        ),
        ({"A": ["1, 2", "0, 1"]}, "line 2 joins node 0 with node 1, but there are"),
        ({"A": ["1, 2", "2, 9223372036854775807"]}, "line 2 joins node 2 with node 9223372036854775807"),
        (
            {"A": ["1, 2", "2, 99999999999999999999"]},
            "line 2 is “2, 99999999999999999999”, not 2 whole numbers",
        ),
        ({"A": ["1, 2", "-9223372036854775808, 2"]}, "line 2 "),
        ({"A": ["1, 2", "3, 4"]}, "line 2 joins a node of graph 1 with one of graph 2"),
        ({"A": ["1, 2", "3"]}, "line 2 is “3”, not 2 whole numbers"),
        ({"A": ["1, 2", "", "2, 3"]}, "line 2 is “”, not 2 whole numbers"),
        ({"A": ["1, 2", "1.5, 3"]}, "line 2 is “1.5, 3”, not 2 whole numbers"),
        ({"A": ["1, 2", "a, b"]}, "line 2 is “a, b”, not 2 whole numbers"),
        ({"A": ["\xff\x00"]}, "line 1 is “"),
        ({"A": ["1", "2"]}, "a line does not have two numbers of nodes"),
        (
            {"graph_indicator": ["1", "1", "2", "1", "2"]},
            "line 4 puts a node into graph 1, after one in graph 2",
        ),
        ({"graph_indicator": ["0", "1", "1", "1", "1"]}, "line 1 puts a node into graph 0, but the first"),
        ({"graph_indicator": ["-9223372036854775807"]}, "line 1 puts a node into graph -9223372036854775807"),
        (
            {"graph_indicator": ["1", "1", "1", "2", "9000000000000"]},
            "it counts 9000000000000 graphs, but has 5",
        ),
        ({"graph_indicator": ["1", "1", "1", "2"]}, "line 4 joins node 4 with node 5, but there are 4"),
        ({"graph_indicator": ["1,1"] * 5}, "more than one number a line"),
        ({"graph_indicator": [" "]}, "it holds no graph"),
        ({"graph_labels": ["1", "2", "3"]}, "it has 3 lines for 2 graphs of 5 nodes"),
        ({"graph_labels": ["0.5", "1.5"]}, "line 1 is “0.5”, not 1 whole numbers"),
        ({"graph_attributes": ["0.5", "one"]}, "line 2 is “one”, not 1 numbers"),
        ({"graph_attributes": ["0.5", "1e39"]}, "line 2 has a number beyond"),
        ({"node_attributes": ["1, 2"] * 4}, "it has 4 lines for 5 nodes"),
        ({"node_attributes": ["1, 2"] * 4 + ["1"]}, "line 5 is “1”, not 2 numbers"),
        ({"node_attributes": ["1, 2"] * 4 + ["1, -1e300"]}, "line 5 has a number beyond"),
        ({"node_labels": ["1"] * 6}, "it has 6 lines for 5 nodes"),
        ({"node_labels": ["1"] * 4 + ["9000000000000"]}, "its labels would make 9000000000000 columns"),
        ({"edge_labels": ["1"] * 3}, "it has 3 lines for 4 edges"),
        ({"edge_attributes": ["1"] * 5}, "it has 5 lines for 4 edges"),
        ({"edge_labels": []}, "it is empty"),
    ],
)
def test_files_that_do_not_agree_are_refused(tmp_path: Path, changed: dict[str, list[str]], why: str) -> None:
    assert_refused(write(tmp_path, SET | changed), why)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_spoilt_bytes_are_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    files = SET | {"node_labels": list("12121"), "node_attributes": ["1,2"] * 5, "edge_labels": list("1234")}
    path = write(tmp_path, files)
    spoilt = tmp_path / f"S_{data.draw(st.sampled_from(sorted(files)))}.txt"
    text = spoilt.read_bytes()
    at = data.draw(st.integers(0, len(text)))
    some = st.sampled_from([b",", b"\n", b"-", b"9" * 18, b"nan", b"e", b" ", b"\r", b"\0"])
    put = b"".join(data.draw(st.lists(some | st.binary(max_size=2), max_size=3)))
    spoilt.write_bytes(text[:at] + put + text[at + data.draw(st.integers(0, 3)) :])
    try:
        part, values = read_all(path)
    except UnreadableFile:
        return
    nodes = np.repeat(part.rows["x"], part.rows["edges"])[:, None]
    assert ((values["edges"] >= 0) & (values["edges"] < nodes)).all()


def test_a_missing_sibling_is_named(tmp_path: Path) -> None:
    assert_refused(
        write(tmp_path, {"A": SET["A"]}), "S_graph_indicator.txt cannot be read: there is no such file"
    )


def test_a_bad_line_far_behind_is_named_by_its_number(tmp_path: Path) -> None:
    lines = ["1, 2"] * 1000
    lines[700] = "1, x"
    with mock.patch.object(number_table, "PIECE_BYTES", 128):
        assert_refused(write(tmp_path, SET | {"A": lines}), "line 701 is “1, x”")


def test_a_line_without_end_is_refused_before_it_is_held(tmp_path: Path) -> None:
    path = write(tmp_path, SET | {"node_attributes": ["1," * (2 << 20)]})
    tracemalloc.start()
    assert_refused(path, "a line is longer than 1 MiB")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


def test_a_set_is_not_one_sample(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match="it holds 2 graphs where one sample was expected"):
        READER.part(LocalFile(write(tmp_path, SET)), whole=True)


@pytest.mark.parametrize(
    "changed",
    [
        {"A": ["1, 2", "2, 1", "4, 5", "4, 5"]},
        {"A": ["1, 2", "2, 1", "2, 4", "4, 5"]},
        {"A": ["1, 2", "2, 1", "2, 3", "4, 9"]},
        {"A": ["1, 2", "2, 1", "2, 3", "4   "]},
        {"A": ["1, 2", "2, 1"]},
        {"graph_labels": ["1", "-2"]},
        {"graph_labels": ["1"]},
        {"node_labels": ["1", "2", "1", "2", "7"]},
        {"node_labels": ["1", "2", "1,2,1"]},
    ],
)
def test_a_set_that_changed_after_it_was_indexed_is_refused(
    tmp_path: Path, changed: dict[str, list[str]]
) -> None:
    path = write(tmp_path, SET | {"node_labels": ["1", "2", "1", "2", "1"]})
    part = READER.part(LocalFile(path), whole=False)
    write(tmp_path, changed)
    with pytest.raises(UnreadableFile) as caught:
        READER.read(LocalFile(path), part, 0, arrays_for(part, 0))
    assert caught.value.hint.endswith(".")


def test_a_block_holds_no_more_than_the_part_says(data_dir: Path) -> None:
    file = LocalFile(data_dir / "graph_aids_tu" / "AIDS_A.txt")
    with mock.patch.object(number_table, "parse_fast", return_value=None):
        part = READER.part(file, whole=False)
        into = arrays_for(part, 0)
        tracemalloc.start()
        READER.read(file, part, 0, into)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= part.scratch_bytes


def assert_refused(path: Path, why: str) -> None:
    with pytest.raises(UnreadableFile) as caught:
        READER.part(LocalFile(path), whole=False)
    error = caught.value
    assert why in error.message
    assert error.message.count(". ") == 0, "one sentence of fact"
    assert error.hint.endswith(".")

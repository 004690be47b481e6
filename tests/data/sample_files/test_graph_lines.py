"""Lines of JSON become the arrays that are written in them; other lines are refused by their number."""

from __future__ import annotations

import csv
import json
import tracemalloc
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from caudal.core.errors import UnreadableFile
from caudal.data.byte_file import LocalFile
from caudal.data.sample_files import graph_lines
from caudal.data.sample_files.base import Part
from caudal.data.sample_files.graph_lines import GraphLinesReader

READER = GraphLinesReader()
GOOD = '{"x": [[1, 2], [3, 4]], "edges": [[0, 1]], "y": 0}'


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


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


def field(part: Part, name: str) -> tuple[str, tuple[int | None, ...]] | None:
    return next(((f.dtype.name, f.shape) for f in part.fields if f.name == name), None)


def test_real_molecules_are_what_their_json_says(data_dir: Path) -> None:
    path = data_dir / "graph_bace" / "bace_graphs.jsonl"
    part, values = read_all(path)
    records = [json.loads(line) for line in path.read_text().splitlines()]
    edges = np.array([edge for record in records for edge in record["edges"]])
    np.testing.assert_array_equal(values["x"], [row for record in records for row in record["x"]])
    np.testing.assert_array_equal(values["edges"], edges[:, :2])
    np.testing.assert_array_equal(values["edge_attr"], edges[:, 2:])
    np.testing.assert_array_equal(part.rows["x"], [len(record["x"]) for record in records])
    np.testing.assert_array_equal(part.rows["edges"], [len(record["edges"]) for record in records])
    assert len(part.ends) > 1
    assert "“id”" in part.left_out[0]


def test_real_molecules_have_the_labels_and_splits_of_the_table_beside_them(data_dir: Path) -> None:
    part, values = read_all(data_dir / "graph_bace" / "bace_graphs.jsonl")
    with (data_dir / "graph_bace" / "bace.csv").open(newline="") as stream:
        table = list(csv.DictReader(stream))
    assert values["y"].tolist() == [int(row["label"]) for row in table]
    names = next(f for f in part.fields if f.name == "split").categories
    assert [names[k] for k in values["split"]] == [
        row["scaffold_split"].replace("valid", "val") for row in table
    ]


@pytest.mark.parametrize("row", [None, "[1],", "1.5,", "[1,2,3],"])
def test_a_block_holds_no_more_than_the_part_says(data_dir: Path, tmp_path: Path, row: str | None) -> None:
    path = data_dir / "graph_bace" / "bace_graphs.jsonl"
    if row:
        path = write(tmp_path / "g.jsonl", '{"edges": [], "x": [' + (row * 100_000)[:-1] + "]}")
    file = LocalFile(path)
    part = READER.part(file, whole=False)
    into = arrays_for(part, 0)
    tracemalloc.start()
    READER.read(file, part, 0, into)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= part.scratch_bytes


def test_the_pass_over_a_file_does_not_hold_it(tmp_path: Path) -> None:
    path = write(tmp_path / "g.jsonl", *([json.dumps({"x": [1], "edges": [], "name": "a" * 20_000})] * 400))
    tracemalloc.start()
    part = READER.part(LocalFile(path), whole=False)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert part.samples == 400
    assert path.stat().st_size > 4e6
    assert peak < 2.5e6


numbers = st.one_of(st.integers(-99, 99), st.floats(-1e6, 1e6, width=32), st.just(float("nan")))


@st.composite
def graph_sets(draw: st.DrawFn) -> list[dict[str, Any]]:
    x_columns, edge_columns = draw(st.integers(1, 3)), draw(st.integers(0, 2))
    beside = draw(st.booleans())
    y_kind, with_split = draw(st.sampled_from(["none", "one", "vector", "node"])), draw(st.booleans())
    y_number = draw(st.sampled_from([st.integers(-5, 5), st.floats(-5, 5, width=16)]))
    graphs = []
    for _ in range(draw(st.integers(1, 6))):
        nodes = draw(st.integers(1, 4))
        ends = st.lists(st.integers(0, nodes - 1), min_size=2, max_size=2)
        edges = draw(st.lists(ends, max_size=5))
        attributes = [[draw(numbers) for _ in range(edge_columns)] for _ in edges]
        graph: dict[str, Any] = {"x": [[draw(numbers) for _ in range(x_columns)] for _ in range(nodes)]}
        graph["edges"] = edges if beside else [a + b for a, b in zip(edges, attributes, strict=True)]
        if beside and edge_columns:
            graph["edge_attr"] = attributes
        count = {"vector": 3, "node": nodes}.get(y_kind)
        if y_kind != "none":
            graph["y"] = draw(y_number) if count is None else [draw(y_number) for _ in range(count)]
        if with_split:
            graph["split"] = draw(st.sampled_from(["train", "val", "test"]))
        graphs.append(graph)
    return graphs


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(graphs=graph_sets(), block_bytes=st.sampled_from([1, 150, 1 << 18]), blank=st.booleans())
def test_graphs_come_back_as_written(
    tmp_path: Path, graphs: list[dict[str, Any]], block_bytes: int, blank: bool
) -> None:
    lines = [line for graph in graphs for line in [json.dumps(graph)] + [" "] * blank]
    path = write(tmp_path / "g.ndjson", *lines)
    with mock.patch.object(graph_lines, "_BLOCK_BYTES", block_bytes):
        part, values = read_all(path)
    if block_bytes == 1:
        assert len(part.ends) == len(graphs)
    assert part.samples == len(graphs)
    x = np.array([row for graph in graphs for row in graph["x"]], np.float64)
    np.testing.assert_array_equal(values["x"], x.astype(np.float32))
    edges = [edge for graph in graphs for edge in graph["edges"]]
    np.testing.assert_array_equal(values["edges"], np.array([edge[:2] for edge in edges]).reshape(-1, 2))
    beside = [row for graph in graphs for row in graph.get("edge_attr", [])]
    attributes = np.array(beside or [edge[2:] for edge in edges], np.float64)
    assert ("edge_attr" in values) == bool(attributes.size)
    if attributes.size:
        np.testing.assert_array_equal(values["edge_attr"], attributes.astype(np.float32))
    ys = [graph["y"] for graph in graphs if "y" in graph]
    assert ("y" in values) == bool(ys)
    if ys:
        flat = [number for y in ys for number in (y if isinstance(y, list) else [y])]
        whole = all(isinstance(number, int) for number in flat)
        assert values["y"].dtype == (np.int64 if whole else np.float32)
        np.testing.assert_array_equal(values["y"].reshape(-1), np.array(flat, values["y"].dtype))
    splits = [("train", "val", "test").index(graph["split"]) for graph in graphs if "split" in graph]
    assert values.get("split", np.zeros(0)).tolist() == splits


@pytest.mark.parametrize(
    ("ys", "nodes", "expected"),
    [
        ([0, 2, 1], [1, 2, 3], ("int64", ())),
        ([0, 0.5, 1], [1, 2, 3], ("float32", ())),
        ([0, 1.0, 1], [1, 2, 3], ("float32", ())),
        ([True, False, True], [1, 2, 3], ("int64", ())),
        ([[0, 1], [1, 1], [1, 0]], [1, 2, 3], ("int64", (2,))),
        ([[0, 1], [1, None], [1, 0]], [1, 2, 3], ("float32", (2,))),
        ([[0], [1, 1], [1, 0, 2]], [1, 2, 3], ("int64", (None,))),
        ([[0, 1], [1, 1]], [2, 2], ("int64", (None,))),
        ([[0], [1]], [2, 2], ("int64", (1,))),
        ([None, None], [2, 2], None),
    ],
)
def test_the_target_is_of_the_graph_or_of_each_node(
    tmp_path: Path, ys: list[Any], nodes: list[int], expected: tuple[str, tuple[int | None, ...]] | None
) -> None:
    lines = [
        json.dumps({"x": [[0]] * count, "edges": [], "y": y}) for y, count in zip(ys, nodes, strict=True)
    ]
    part, values = read_all(write(tmp_path / "g.jsonl", *lines))
    assert field(part, "y") == expected
    assert ("y" in part.rows) == (expected is not None and None in expected[1])
    if expected is not None:
        flat = [number for y in ys for number in (y if isinstance(y, list) else [y])]
        truth = np.array([np.nan if number is None else number for number in flat])
        np.testing.assert_array_equal(values["y"].reshape(-1), truth)


def test_a_graph_without_edges_or_nodes_goes_with_all_others(tmp_path: Path) -> None:
    empty = '{"x": [], "edges": []}'
    full = '{"x": [[1], [null]], "edges": [[0, 1, 0.5]]}'
    part, values = read_all(write(tmp_path / "g.jsonl", empty, full, '{"x": [2], "edges": []}', full))
    assert part.rows["x"].tolist() == [0, 2, 1, 2]
    assert part.rows["edge_attr"].tolist() == [0, 1, 0, 1]
    np.testing.assert_array_equal(values["x"], np.array([[1], [np.nan], [2], [1], [np.nan]], np.float32))


def test_a_byte_order_mark_and_windows_line_ends_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "g.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + f"{GOOD}\r\n\r\n{GOOD}".encode())
    part, values = read_all(path)
    assert part.samples == 2
    assert values["edges"].tolist() == [[0, 1], [0, 1]]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "line 2, the text is not JSON"),
        (GOOD[:30], "line 2, the text is not JSON (at column"),
        ("\xff", "line 2, the text is not JSON"),
        ("[" * 100_000, "line 2, the text is not JSON"),
        ("[1, 2]", "line 2, there is no object"),
        ('{"edges": [], "y": 0}', "line 2, “x” is missing"),
        ('{"x": [[1, 2]], "y": 0}', "line 2, “edges” is missing"),
        ('{"x": [[1, 2]], "edges": []}', "line 2, “y” is missing"),
        ('{"x": [[1, 2]], "edges": [], "y": 0, "split": "test"}', "line 2, “split” appears"),
        ('{"x": [[1, 2], [3]], "edges": [], "y": 0}', "line 2, “x” is not a list of rows"),
        ('{"x": [[[1, 2]]], "edges": [], "y": 0}', "line 2, “x” is not a list of rows"),
        ('{"x": [["C", "N"]], "edges": [], "y": 0}', "line 2, “x” is not a list of rows"),
        ('{"x": {"a": 1}, "edges": [], "y": 0}', "line 2, “x” is not a list of rows"),
        ('{"x": 3, "edges": [], "y": 0}', "line 2, “x” is not a list of rows"),
        ('{"x": [[], []], "edges": [], "y": 0}', "line 2, “x” is not a list of rows"),
        (
            '{"x": [[1, 2, 3]], "edges": [], "y": 0}',
            "line 2, a row of “x” has 3 numbers, in the lines before",
        ),
        ('{"x": [[1, 1e39]], "edges": [], "y": 0}', "line 2, “x” has a number beyond"),
        ('{"x": [[1, 1%s]], "edges": [], "y": 0}' % ("0" * 400), "line 2, “x” is not a list of rows"),
        (
            '{"x": [[1, 2]], "edges": [[0, 1]], "y": 0}',
            "line 2, edge 0 joins node 0 with node 1, but the nodes",
        ),
        ('{"x": [[1, 2]], "edges": [[0, 0], [-1, 0]], "y": 0}', "line 2, edge 1 joins node -1 with node 0"),
        ('{"x": [[1, 2]], "edges": [[0, 0.5]], "y": 0}', "line 2, edge 0 joins node 0 with node 0.5"),
        ('{"x": [[1, 2]], "edges": [[0, NaN]], "y": 0}', "line 2, edge 0 joins node 0 with node nan"),
        ('{"x": [], "edges": [[0, 0]], "y": 0}', "line 2, edge 0 joins node 0 with node 0, but there is no"),
        ('{"x": [[1, 2]], "edges": [[0]], "y": 0}', "line 2, a row of “edges” does not have two"),
        ('{"x": [[1, 2]], "edges": [[0, 0, 1]], "y": 0}', "line 2, a row of “edge_attr” has 1 numbers"),
        (
            '{"x": [[1, 2]], "edges": [[0, 0]], "edge_attr": [1, 2], "y": 0}',
            "“edge_attr” has 2 rows for 1 edges",
        ),
        (
            '{"x": [[1, 2]], "edges": [[0, 0, 1]], "edge_attr": [1], "y": 0}',
            "line 2, edges have attributes twice",
        ),
        ('{"x": [[1, 2]], "edges": [], "y": "toxic"}', "line 2, “y” is neither a number"),
        ('{"x": [[1, 2]], "edges": [], "y": [[1]]}', "line 2, “y” is neither a number"),
        ('{"x": [[1, 2]], "edges": [], "y": 99999999999999999999}', "line 2, “y” is neither a number"),
        ('{"x": [[1, 2]], "edges": [], "y": 1e39}', "line 2, “y” has a number beyond"),
        ('{"x": [[1, 2]], "edges": [], "y": [1, 2]}', "line 2, “y” has 2 numbers, neither"),
        ('{"x": [[1, 2]], "edges": [], "y": 0, "split": "some"}', 'line 2, the split is "some"'),
        ('{"x": [[1, 2]], "edges": [], "y": 0, "split": [1]}', "line 2, the split is [1]"),
    ],
)
def test_a_bad_line_is_refused_by_its_number(tmp_path: Path, line: str, why: str) -> None:
    path = tmp_path / "g.jsonl"
    path.write_bytes(f"{GOOD}\n{line}\n".encode("latin-1" if line == "\xff" else "utf-8"))
    assert_refused(path, why)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_spoilt_bytes_are_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "g.jsonl"
    text = f"{GOOD}\n{GOOD}\n".encode()
    at = data.draw(st.integers(0, len(text)))
    some = st.sampled_from([b",", b"\n", b"-", b"9" * 30, b"NaN", b"[", b"]", b"{}", b'"', b"null", b"\0"])
    put = b"".join(data.draw(st.lists(some | st.binary(max_size=2), max_size=3)))
    path.write_bytes(text[:at] + put + text[at + data.draw(st.integers(0, 3)) :])
    try:
        part, values = read_all(path)
    except UnreadableFile:
        return
    nodes = np.repeat(part.rows["x"], part.rows["edges"])[:, None]
    assert ((values["edges"] >= 0) & (values["edges"] < nodes)).all()


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ([""], "it holds no graph"),
        (['{"x": [], "edges": []}'], "none of its graphs has a node"),
        (
            ['{"x": [[1]], "edges": [], "y": [1, 2]}', '{"x": [[1]], "edges": [], "y": 1}'],
            "line 2, “y” is one number",
        ),
        (['{"x": [1, 2], "edges": [], "y": []}'], "line 1, “y” has 0 numbers"),
    ],
)
def test_a_file_without_a_meaning_is_refused(tmp_path: Path, lines: list[str], why: str) -> None:
    assert_refused(write(tmp_path / "g.jsonl", *lines), why)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "g.jsonl").touch()
    assert_refused(tmp_path / "g.jsonl", "it is empty")


def test_a_line_without_end_is_refused_before_it_is_held(tmp_path: Path) -> None:
    path = write(tmp_path / "g.jsonl", GOOD, '{"x": [' + "1," * 500_000)
    tracemalloc.start()
    with mock.patch.object(graph_lines, "_LINE_BYTES", 1 << 16):
        assert_refused(path, "in line 2, it is longer than")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_500_000


def test_long_texts_among_numbers_take_no_more_memory_than_they_have(tmp_path: Path) -> None:
    """Left to itself, NumPy would give each of the cells the length of the longest text."""
    path = write(tmp_path / "g.jsonl", json.dumps({"x": ["a" * 100_000] + [1] * 10_000, "edges": []}))
    tracemalloc.start()
    assert_refused(path, "line 1, “x” is not a list of rows")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4e6


def test_a_file_with_many_graphs_is_not_one_sample(tmp_path: Path) -> None:
    one, two = write(tmp_path / "1.jsonl", GOOD), write(tmp_path / "2.jsonl", GOOD, GOOD)
    assert READER.part(LocalFile(one), whole=True).samples == 1
    with pytest.raises(UnreadableFile, match="it holds 2 graphs where one sample was expected"):
        READER.part(LocalFile(two), whole=True)


@pytest.mark.parametrize(
    "line",
    [
        GOOD.replace('"y": 0', '"y": 0.5'),
        GOOD.replace(', "y": 0', ""),
        GOOD.replace("[[0, 1]]", "[]"),
        GOOD.replace("[3, 4]", "[3, 4], [5, 6]"),
        GOOD.replace("[1, 2], [3, 4]", "1, 2"),
        GOOD[:-1],
        " ",
        f"{GOOD}\n{GOOD}",
    ],
)
def test_a_file_that_changed_after_it_was_indexed_is_refused(tmp_path: Path, line: str) -> None:
    path = write(tmp_path / "g.jsonl", GOOD + " " * 80)
    part = READER.part(LocalFile(path), whole=False)
    path.write_text(line + " " * (path.stat().st_size - len(line)))
    with pytest.raises(UnreadableFile) as caught:
        READER.read(LocalFile(path), part, 0, arrays_for(part, 0))
    assert caught.value.hint


def assert_refused(path: Path, why: str) -> None:
    with pytest.raises(UnreadableFile) as caught:
        READER.part(LocalFile(path), whole=False)
    error = caught.value
    assert why in error.message
    assert str(path) in error.message
    assert error.message.count(". ") == 0, "one sentence of fact"
    assert error.hint.endswith(".")

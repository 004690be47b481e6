"""A batch of graphs is what torch_geometric makes of it, from arrays and from a stream."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import caudal
from caudal.core.errors import UsageError
from caudal.data.byte_file import LocalFile
from caudal.data.graphs import join
from caudal.data.sample_files.tu import TuReader


@st.composite
def batches(draw: st.DrawFn) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Joined fields, nodes and edges of each graph; a graph without nodes has no edges."""
    nodes = np.array(draw(st.lists(st.integers(0, 5), max_size=8)), np.int64)
    edges = np.array([draw(st.integers(0, 6)) if count else 0 for count in nodes], np.int64)
    seed = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    upto = np.repeat(nodes, edges)[:, None]
    values = {
        "x": seed.normal(size=(nodes.sum(), 3)).astype(np.float32),
        "edges": seed.integers(0, np.broadcast_to(upto, (edges.sum(), 2))),
        "edge_attr": seed.normal(size=(edges.sum(), 2)).astype(np.float32),
        "y": seed.integers(0, 3, len(nodes)),
    }
    return values, nodes, edges


def joined(
    values: dict[str, np.ndarray], nodes: np.ndarray, edges: np.ndarray, graph_ends: np.ndarray
) -> list[dict[str, np.ndarray]]:
    """What `join` makes of several batches at once, batch by batch."""
    node_ends, edge_ends = np.cumsum(nodes), np.cumsum(edges)
    edge_index, number = np.empty((2, edges.sum()), np.int64), np.empty(nodes.sum(), np.int64)
    ptrs = join(values["edges"], node_ends, edge_ends, graph_ends, edge_index, number)
    batches, first = [], 0
    for last, ptr in zip(graph_ends.tolist(), ptrs, strict=True):
        rows = slice(nodes[:first].sum(), nodes[:last].sum())
        lines = slice(edges[:first].sum(), edges[:last].sum())
        batches.append(
            {
                "x": values["x"][rows],
                "edge_attr": values["edge_attr"][lines],
                "y": values["y"][first:last],
                "edge_index": edge_index[:, lines],
                "batch": number[rows],
                "ptr": ptr,
            }
        )
        first = last
    return batches


def assert_as_torch_geometric(values: dict[str, np.ndarray], nodes: np.ndarray, edges: np.ndarray) -> None:
    torch = pytest.importorskip("torch")
    geometric = pytest.importorskip("torch_geometric.data")
    x_of, edges_of, attr_of = (
        np.split(values[name], np.cumsum(counts)[:-1])
        for name, counts in (("x", nodes), ("edges", edges), ("edge_attr", edges))
    )
    graphs = [
        geometric.Data(
            x=torch.from_numpy(x_of[k]),
            edge_index=torch.from_numpy(edges_of[k].T.copy()),
            edge_attr=torch.from_numpy(attr_of[k]),
            y=torch.tensor([values["y"][k]]),
        )
        for k in range(len(nodes))
    ]
    for cuts in ([len(nodes)], [len(nodes) // 2, len(nodes)] if len(nodes) > 1 else [len(nodes)]):
        batches = joined(values, nodes, edges, np.array(cuts))
        for ours, first, last in zip(batches, [0, *cuts], cuts, strict=False):
            theirs = geometric.Batch.from_data_list(graphs[first:last])
            for name, value in ours.items():
                np.testing.assert_array_equal(value, theirs[name].numpy(), err_msg=name)
                assert value.dtype == theirs[name].numpy().dtype, name


@settings(max_examples=50, deadline=None)
@given(batches().filter(lambda batch: len(batch[1]) > 0))
def test_the_union_is_the_batch_of_torch_geometric(
    batch: tuple[dict[str, np.ndarray], np.ndarray, np.ndarray],
) -> None:
    assert_as_torch_geometric(*batch)


def test_the_union_of_real_graphs_is_the_batch_of_torch_geometric(data_dir: Path) -> None:
    file = LocalFile(data_dir / "graph_aids_tu" / "AIDS_A.txt")
    part = TuReader().part(file, whole=False)
    count = int(part.ends[0])
    into = {
        f.name: np.empty((part.rows[f.name][:count].sum() if f.ragged else count, *f.row_shape), f.dtype)
        for f in part.fields
    }
    TuReader().read(file, part, 0, into)
    assert_as_torch_geometric(into, part.rows["x"][:count], part.rows["edges"][:count])


@given(batches())
def test_taking_the_union_apart_gives_the_graphs_back(
    batch: tuple[dict[str, np.ndarray], np.ndarray, np.ndarray],
) -> None:
    values, nodes, edges = batch
    (union,) = joined(values, nodes, edges, np.array([len(nodes)]))
    start, stop = union["edge_index"]
    np.testing.assert_array_equal(union["batch"][start], union["batch"][stop])
    np.testing.assert_array_equal(union["batch"][start], np.repeat(np.arange(len(nodes)), edges))
    np.testing.assert_array_equal(
        (union["edge_index"] - union["ptr"][union["batch"][start]]).T, values["edges"]
    )
    np.testing.assert_array_equal(np.diff(union["ptr"]), nodes)


@pytest.mark.parametrize(("batch_size", "ram"), [(16, "64MiB"), (100, "64MiB")])
def test_a_stream_joins_the_graphs_of_each_batch(data_dir: Path, batch_size: int, ram: str) -> None:
    folder = data_dir / "graph_aids_tu"
    options = {"batch_size": batch_size, "node_budget": 40 * batch_size, "seed": 5, "ram": ram, "epochs": 2}
    apart, together = caudal.stream(folder, **options), caudal.stream(folder, join_graphs=True, **options)
    pairs = 0
    for one, union in zip(apart, together, strict=True):
        np.testing.assert_array_equal(one.samples, union.samples)
        assert one.ends_step == union.ends_step
        assert union.size == len(one.samples)
        nodes, edges = one.numpy("x").lengths, one.numpy("edges").lengths
        values = {name: one.numpy(name) for name in one}
        values = {name: getattr(value, "values", value) for name, value in values.items()}
        values.setdefault("edge_attr", np.zeros((edges.sum(), 0)))
        (expected,) = joined(values, nodes, edges, np.array([len(nodes)]))
        assert set(union) == (set(one) - {"edges"}) | {"edge_index", "batch", "ptr"}
        for name in union:
            found = union[name].numpy()
            wanted = expected[name] if name in expected else values[name]
            np.testing.assert_array_equal(found, wanted, err_msg=name)
        pairs += 1
    assert pairs > 2


def test_what_has_no_edges_is_not_joined(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((10, 3)))
    with pytest.raises(UsageError, match="edges"):
        caudal.stream(tmp_path, join_graphs=True)

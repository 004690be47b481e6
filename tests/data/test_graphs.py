"""A batch of graphs is what torch_geometric makes of it, and no batch is above its budget."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from caudal.core.errors import DataError
from caudal.data.byte_file import LocalFile
from caudal.data.graphs import by_budget, disjoint_union
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
    theirs = geometric.Batch.from_data_list(graphs)
    ours = disjoint_union(values, {"x": np.cumsum(nodes), "edges": np.cumsum(edges)})
    assert set(ours) == {"x", "edge_index", "edge_attr", "batch", "ptr", "y"}
    for name, value in ours.items():
        np.testing.assert_array_equal(value, theirs[name].numpy(), err_msg=name)
        assert value.dtype == theirs[name].numpy().dtype, name
    assert ours["edge_index"].flags.c_contiguous


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
    union = disjoint_union(values, {"x": np.cumsum(nodes), "edges": np.cumsum(edges)})
    start, stop = union["edge_index"]
    np.testing.assert_array_equal(union["batch"][start], union["batch"][stop])
    np.testing.assert_array_equal(union["batch"][start], np.repeat(np.arange(len(nodes)), edges))
    np.testing.assert_array_equal(
        (union["edge_index"] - union["ptr"][union["batch"][start]]).T, values["edges"]
    )
    np.testing.assert_array_equal(np.diff(union["ptr"]), nodes)


def greedy(costs: list[int], most: int) -> list[int]:
    """The plain truth beside `by_budget`."""
    ends, held = [], 0
    for k, cost in enumerate(costs):
        if k and held + cost > most:
            ends.append(k)
            held = 0
        held += cost
    return [*ends, len(costs)] if costs else []


@settings(max_examples=200)
@given(hnp.arrays(np.int64, st.integers(0, 40), elements=st.integers(0, 20)), st.integers(20, 60))
def test_batches_are_as_large_as_the_budget_lets_them_be(costs: np.ndarray, most: int) -> None:
    ends = by_budget(costs, most)
    assert ends.dtype == np.int64
    assert ends.tolist() == greedy(costs.tolist(), most)
    assert all(part.sum() <= most for part in np.split(costs, ends[:-1])) if len(costs) else not len(ends)


def test_a_graph_above_the_budget_is_refused_with_what_would_do() -> None:
    with pytest.raises(DataError) as caught:
        by_budget(np.array([3, 12, 4, 15]), 10)
    assert caught.value.message == "Graph 1 has 12 nodes, and a batch may count 10 at most."
    assert "at least 15" in caught.value.hint
    assert caught.value.facts == {"graph": 1, "cost": 12, "most": 10}
    assert by_budget(np.array([3, 12, 4, 15]), 15).tolist() == [2, 3, 4]

"""Laws of the graph networks: company, order and micro-batches change nothing; edges lead both ways."""

import sys
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from caudal.core.errors import UsageError
from caudal.data import graphs as joining
from caudal.models.graph_conv import GraphConv, GraphConvConfig
from caudal.models.ragged import Graphs

FEATURES, EDGE_FEATURES = 4, 2
KINDS = ("gcn", "gin", "gat", "sage")
NODES, EDGES = [5, 1, 7, 3, 0], [9, 0, 12, 2, 0]


def rows(nodes: list[int] = NODES, edges: list[int] = EDGES) -> tuple[torch.Tensor, ...]:
    """The ragged fields of a batch: x, its ends, edges, their ends, edge features."""
    draw = torch.Generator().manual_seed(3)
    pairs = [torch.randint(0, max(n, 1), (e, 2), generator=draw) for n, e in zip(nodes, edges, strict=True)]
    return (
        torch.randn(sum(nodes), FEATURES, generator=draw),
        torch.tensor(nodes).cumsum(0),
        torch.cat(pairs),
        torch.tensor(edges).cumsum(0),
        torch.randn(sum(edges), EDGE_FEATURES, generator=draw),
    )


def network(kind: str, **config: object) -> GraphConv:
    torch.manual_seed(0)
    values = {"kind": kind, "width": 8, "layers": 2, "heads": 2, "edge_inputs": EDGE_FEATURES}
    return GraphConv(FEATURES, 2, GraphConvConfig.make(values | config))


EVERY = pytest.mark.parametrize(
    ("kind", "readout", "edge_inputs"),
    [
        *product(KINDS, ("mean",), (0, EDGE_FEATURES)),
        *product(("gin", "gat"), ("sum", "mean_max", "attention"), (0,)),
    ],
)


@EVERY
@pytest.mark.parametrize("undirected", [True, False])
def test_a_graph_scores_the_same_alone_and_in_company(
    kind: str, readout: str, edge_inputs: int, undirected: bool
) -> None:
    model = network(kind, readout=readout, edge_inputs=edge_inputs, undirected=undirected)
    with torch.no_grad():
        together = model(Graphs.from_rows(*rows()))
        assert together.shape == (len(NODES), 2)
        for k in range(len(NODES)):
            found = model(Graphs.from_rows(*rows(), slice(k, k + 1)))[0]
            assert torch.allclose(together[k], found, atol=1e-5, rtol=1e-5)


@EVERY
def test_the_gradient_of_a_batch_is_that_of_its_micro_batches(
    kind: str, readout: str, edge_inputs: int
) -> None:
    model = network(kind, readout=readout, edge_inputs=edge_inputs)

    def gradient(size: int) -> list[torch.Tensor]:
        model.zero_grad()
        for start in range(0, len(NODES), size):
            part = Graphs.from_rows(*rows(), slice(start, start + size))
            model(part).square().sum().backward()
        return [w.grad.clone() for w in model.parameters() if w.grad is not None]

    whole = gradient(len(NODES))
    assert len(whole) == len(list(model.parameters()))
    for expected, found in zip(whole, gradient(2), strict=True):
        assert torch.allclose(expected, found, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_nodes_and_edges_changes_nothing(kind: str) -> None:
    model, graphs = network(kind), Graphs.from_rows(*rows([7], [12]))
    place, edge = torch.randperm(7), torch.randperm(12)
    number = torch.empty(7, dtype=torch.int64)
    number[place] = torch.arange(7)
    assert graphs.attr_ED is not None
    mixed = Graphs(
        graphs.x_NF[place], number[graphs.edges_2E[:, edge]], graphs.graph_N, 1, graphs.attr_ED[edge]
    )
    with torch.no_grad():
        assert torch.allclose(model(graphs), model(mixed), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_node_features_edges_and_edge_features_all_matter(kind: str) -> None:
    model, graphs = network(kind), Graphs.from_rows(*rows([7], [12]))
    assert graphs.attr_ED is not None
    fewer = Graphs(graphs.x_NF, graphs.edges_2E[:, :4], graphs.graph_N, 1, graphs.attr_ED[:4])
    other = Graphs(graphs.x_NF, graphs.edges_2E, graphs.graph_N, 1, graphs.attr_ED + 1)
    moved = Graphs(graphs.x_NF + 1, graphs.edges_2E, graphs.graph_N, 1, graphs.attr_ED)
    with torch.no_grad():
        for changed in (fewer, other, moved):
            assert not torch.allclose(model(graphs), model(changed), atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_nodes_have_scores_of_their_own(kind: str) -> None:
    model = network(kind, per_node=True)
    with torch.no_grad():
        together = model(Graphs.from_rows(*rows()))
        assert together.shape == (sum(NODES), 2)
        assert torch.allclose(together[6:13], model(Graphs.from_rows(*rows(), slice(2, 3))), atol=1e-5)


def test_a_network_of_so_many_layers_sees_so_far() -> None:
    path = torch.stack([torch.arange(9), torch.arange(1, 10)])
    x = torch.zeros(10, FEATURES, requires_grad=True)
    model = network("gin", layers=3, edge_inputs=0, per_node=True)
    model(Graphs(x, path, torch.zeros(10, dtype=torch.int64), 1))[0].sum().backward()
    assert x.grad is not None
    assert torch.nonzero(x.grad.abs().sum(1)).flatten().tolist() == [0, 1, 2, 3]


@given(st.integers(1, 6), st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=12))
@settings(deadline=None)
def test_edges_lead_both_ways_however_they_are_listed(nodes: int, pairs: list[tuple[int, int]]) -> None:
    pairs = sorted({(a % nodes, b % nodes) for a, b in pairs})
    edges = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T
    attr = torch.arange(edges.shape[1], dtype=torch.float32)[:, None]
    graph = Graphs(torch.zeros(nodes, 1), edges, torch.zeros(nodes, dtype=torch.int64), 1, attr)
    both = graph.both_ways()
    found = list(map(tuple, both.edges_2E.T.tolist()))
    assert sorted(found) == sorted({*pairs, *((b, a) for a, b in pairs)})
    assert both.attr_ED is not None
    for (a, b), value in zip(found, both.attr_ED[:, 0].tolist(), strict=True):
        assert pairs[int(value)] in ((a, b), (b, a))
    assert torch.equal(both.both_ways().edges_2E, both.edges_2E)


@pytest.mark.parametrize("part", [slice(None), slice(1, 3), slice(3, 5), slice(2, 2)])
def test_a_joined_batch_and_ragged_fields_make_the_same_record(part: slice) -> None:
    x, node_ends, edges, edge_ends, attr = rows()
    edge_index, batch = np.empty((2, len(edges)), np.int64), np.empty(len(x), np.int64)
    (ptr,) = joining.join(
        edges.numpy(), node_ends.numpy(), edge_ends.numpy(), np.array([len(NODES)]), edge_index, batch
    )
    found = Graphs.from_joined(x, *map(torch.from_numpy, (edge_index, batch, ptr)), attr, part)
    expected = Graphs.from_rows(x, node_ends, edges, edge_ends, attr, part)
    assert found.count == expected.count
    for name in ("x_NF", "edges_2E", "graph_N", "attr_ED"):
        assert torch.equal(getattr(found, name), getattr(expected, name))


def test_missing_features_count_as_zero_or_are_said() -> None:
    x, *rest = rows()
    x[2, 1] = float("nan")
    rest[-1][4, 0] = float("inf")
    zero = x.nan_to_num(0)
    attr = torch.where(torch.isfinite(rest[-1]), rest[-1], 0)
    for indicator in (False, True):
        model = network("gin", indicator=indicator)
        with torch.no_grad():
            broken = model(Graphs.from_rows(x, *rest))
            filled = model(Graphs.from_rows(zero, *rest[:-1], attr))
        assert torch.isfinite(broken).all()
        assert torch.equal(broken, filled) is not indicator


def test_without_torch_geometric_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_geometric", None)
    with pytest.raises(UsageError, match="torch-geometric") as caught:
        network("gcn")
    assert "caudal[graph]" in caught.value.hint


def test_heads_have_to_share_the_width_evenly() -> None:
    with pytest.raises(UsageError, match="heads"):
        GraphConvConfig.make({"kind": "gat", "width": 9, "heads": 2})

"""Batches of small graphs: how many go into one, and one large graph out of many. It reads no files.

Shapes: B graphs, N nodes and E edges of all graphs of a batch together, F and D features of a node and of
an edge. A batch has the form that torch_geometric takes, without needing it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from caudal.core.errors import DataError
from caudal.core.messages import _
from caudal.data.sample_files.base import Array, Ints


def disjoint_union(values: Mapping[str, Array], ends: Mapping[str, Ints]) -> dict[str, Array]:
    """The graphs of a batch as one graph in which no edge joins two of them.

    `values` are the joined fields of the batch: `x` (N, F), `edges` (E, 2) with nodes counted from 0 within
    each graph, and whatever else; `ends["x"]` and `ends["edges"]` (B,) are the rows after each graph's last.

    Returns:
        `x` as it is; `edge_index` (2, E) int64, with nodes counted through the batch; `batch` (N,) int64,
        the graph of each node; `ptr` (B + 1,) int64, the first node of each graph and at last N; and
        every other field (`edge_attr`, `y`, …) as it is.
    """
    node_ends, edge_ends = ends["x"], ends["edges"]
    assert len(node_ends) == len(edge_ends), "ends of different batches"
    ptr = np.concatenate([np.zeros(1, np.int64), node_ends])
    edges = values["edges"]
    assert ptr[-1] == len(values["x"]), "the ends of nodes go with other nodes"
    assert (edge_ends[-1] if len(edge_ends) else 0) == len(edges), "the ends of edges go with other edges"
    first_node = np.repeat(ptr[:-1], np.diff(edge_ends, prepend=0))
    edge_index = np.empty((2, len(edges)), np.int64)
    np.add(edges.T, first_node, out=edge_index)
    others = {name: value for name, value in values.items() if name != "edges"}
    batch = np.repeat(np.arange(len(node_ends), dtype=np.int64), np.diff(ptr))
    return others | {"edge_index": edge_index, "batch": batch, "ptr": ptr}


def by_budget(costs: Ints, most: int) -> Ints:
    """Cut a sequence of graphs into batches: the number of graphs before each batch's end, (batches,) int64.

    `costs` (graphs,) is what each graph takes, such as its nodes and edges, none below 0. Each batch takes
    as many graphs as come to `most` together, in their order; the last may be smaller.

    Raises:
        DataError: a graph alone costs more than `most`.
    """
    assert not len(costs) or costs.min() >= 0, "a graph cannot cost less than nothing"
    above = np.flatnonzero(costs > most)
    if len(above):
        graph, cost, largest = int(above[0]), int(costs[above[0]]), int(costs.max())
        raise DataError(
            _("Graph {graph} has {cost} nodes, and a batch may count {most} at most.").format(
                graph=graph, cost=cost, most=most
            ),
            _("Let a batch count at least {cost}, or leave out larger graphs.").format(cost=largest),
            graph=graph,
            cost=cost,
            most=most,
        )
    total = np.cumsum(costs, dtype=np.int64)
    ends, end, before = [], 0, 0
    while end < len(costs):
        end = int(np.searchsorted(total, before + most, side="right"))
        before = int(total[end - 1])
        ends.append(end)
    return np.array(ends, np.int64)

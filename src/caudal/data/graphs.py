"""Batches of small graphs: one graph out of many, in which no edge joins two of them. It reads no files.

Shapes: G graphs, N nodes and E edges of all of them together. A batch has the form that torch_geometric
takes (`x`, `edge_index`, `batch`, `ptr`), without needing it.
"""

from __future__ import annotations

import numpy as np

from caudal.data.sample_files.base import Array, Ints

NODES, EDGES = "x", "edges"  # the ragged fields that make a sample a graph
_INT64 = np.dtype(np.int64)


def joined_bytes(nodes: Ints, edges: Ints) -> Ints:
    """What `join` writes for each of G graphs with so many nodes and edges (G,)."""
    return (nodes + 2 * edges) * _INT64.itemsize


def join(
    edges_E2: Array, node_ends: Ints, edge_ends: Ints, graph_ends: Ints, edge_index_2E: Ints, batch_N: Ints
) -> list[Ints]:
    """Join the graphs of several batches at once, batch by batch.

    `edges_E2` are pairs of nodes, counted from 0 within each graph; `node_ends` and `edge_ends` (G,) the rows
    after each graph's last; `graph_ends` the number of graphs up to the end of each batch. Fills
    `edge_index_2E`, nodes counted through their batch, and `batch_N`, the graph of each node in its batch.

    Returns:
        `ptr` of each batch: the first node of each of its graphs, and at last the number of its nodes.
    """
    graphs = np.diff(graph_ends, prepend=0)
    firsts = graph_ends - graphs
    starts = np.concatenate([np.zeros(1, np.int64), node_ends])
    in_batch = starts[:-1] - np.repeat(starts[firsts], graphs)  # each graph's first node
    np.add(edges_E2.T, np.repeat(in_batch, np.diff(edge_ends, prepend=0)), out=edge_index_2E)
    number = np.arange(len(node_ends)) - np.repeat(firsts, graphs)
    batch_N[:] = np.repeat(number, np.diff(starts))
    spans = zip(firsts.tolist(), graph_ends.tolist(), strict=True)
    return [starts[first : last + 1] - starts[first] for first, last in spans]

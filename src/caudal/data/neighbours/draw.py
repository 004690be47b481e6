"""Draws a tree of neighbours for each of some nodes: a pure function of seed, epoch and node.

What is drawn for a node does not depend on what else is drawn, so batches may be cut as memory asks for. Of
more neighbours than are wanted each slot takes one from its own stretch of them: every neighbour is as likely
as any other (sampling as GraphSAGE, Hamilton, Ying and Leskovec, NeurIPS 2017). Legend: B roots, N nodes of
all trees, E edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from caudal.core.seeds import integer
from caudal.data.neighbours.one_graph import OneGraph
from caudal.data.sample_files.base import Ints

Keys = npt.NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Trees:
    """`nodes_N` are nodes of the graph, the roots first; `root_N` is the tree of each.

    `edges_2E` lead from a neighbour to the node that asked for it, counted through all trees.
    """

    nodes_N: Ints
    edges_2E: Ints
    root_N: Ints


def draw_trees(graph: OneGraph, roots_B: Ints, fan: Sequence[int], seed: int, epoch: int) -> Trees:
    """Trees as deep as `fan` is long: at level k each node has at most `fan[k]` neighbours."""
    keys = _mixed(roots_B.astype(np.uint64) * _GOLDEN + np.uint64(integer(seed, "neighbours", epoch)))
    nodes, places, roots = [roots_B.astype(np.int64)], np.arange(len(roots_B)), [np.arange(len(roots_B))]
    froms, tos, count = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], len(roots_B)
    for most in fan:
        starts, degrees = graph.starts_of(nodes[-1])
        taken = np.minimum(degrees, most)
        parent = np.repeat(np.arange(len(taken)), taken)
        slot = np.arange(len(parent)) - np.repeat(np.cumsum(taken) - taken, taken)
        keys = _mixed(keys[parent] + (slot.astype(np.uint64) + np.uint64(1)) * _GOLDEN)
        share = (keys >> np.uint64(11)).astype(np.float64) * 2.0**-53
        degree, wanted = degrees[parent], taken[parent]
        drawn = ((slot + share) * degree / np.maximum(wanted, 1)).astype(np.int64)
        within = np.where(degree > wanted, np.minimum(drawn, degree - 1), slot)
        found = graph.neighbours_E[starts[parent] + within].astype(np.int64)
        froms.append(count + np.arange(len(found)))
        tos.append(places[parent])
        places, count = froms[-1], count + len(found)
        nodes.append(found)
        roots.append(roots[-1][parent])
    edges = np.stack([np.concatenate(froms), np.concatenate(tos)])
    return Trees(np.concatenate(nodes), edges, np.concatenate(roots))


def _mixed(keys: Keys) -> Keys:
    """Numbers that say nothing of `keys` (the finalizer of splitmix64, Steele, Lea and Flood, 2014)."""
    with np.errstate(over="ignore"):
        keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return keys ^ (keys >> np.uint64(31))

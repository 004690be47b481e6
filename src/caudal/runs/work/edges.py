"""Edges of graphs as files hold them: pairs of nodes of one graph, or a sentence that names what is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from caudal.core.errors import BadValues
from caudal.core.messages import _
from caudal.data.sample_files.base import Array, Field, Ints
from caudal.data.sample_set import SampleSet


def check_form(one: Field, root: str) -> None:
    """Raise unless a field can hold pairs of nodes.

    Raises:
        BadValues: rows of another length than 2, or no whole numbers.
    """
    if one.row_shape == (2,) and one.dtype.kind in "iu":
        return
    raise BadValues(
        _("“{field}” in {path} has rows {shape} of {dtype}, and an edge is two whole numbers.").format(
            field=one.name, path=root, shape=list(one.row_shape), dtype=one.dtype
        ),
        _("Give a row with the numbers of two nodes for each edge, counted from 0 in each graph."),
    )


def check_nodes(edges_E2: Array, edges_G: Ints, nodes_G: Ints, samples: SampleSet, numbers_G: Ints) -> None:
    """Raise unless every edge leads between nodes of its graph.

    `edges_E2` lie in the order of the graphs; `edges_G` and `nodes_G` are how many of them each graph has,
    and `numbers_G` what samples these are.

    Raises:
        BadValues: an edge to a node that is not there; the sample is named.
    """
    if not len(edges_E2):
        return
    wrong = (edges_E2 >= np.repeat(nodes_G, edges_G)[:, None]).any(1)
    if edges_E2.dtype.kind == "i":
        wrong |= (edges_E2 < 0).any(1)
    if not wrong.any():
        return
    at = int(np.flatnonzero(wrong)[0])
    graph = int(np.searchsorted(np.cumsum(edges_G), at, "right"))
    file, within = samples.where(int(numbers_G[graph]))
    raise BadValues(
        _("Graph {number} of {path} has {nodes} nodes, and an edge from {first} to {second}.").format(
            number=within,
            path=Path(samples.columns.names[file]).name,
            nodes=int(nodes_G[graph]),
            first=int(edges_E2[at, 0]),
            second=int(edges_E2[at, 1]),
        ),
        _("Nodes count from 0 in each graph; correct the file."),
    )

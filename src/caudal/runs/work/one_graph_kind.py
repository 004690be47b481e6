"""Nodes of one graph as samples: each goes into the model with a tree of neighbours that is drawn for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from caudal.core.messages import _
from caudal.core.seeds import generator
from caudal.data.batches import Batch
from caudal.data.locations import is_remote
from caudal.data.neighbours.draw import draw_trees
from caudal.data.neighbours.one_graph import NODES, is_one_graph, open_graph
from caudal.data.paths import local_path
from caudal.data.sample_set import SampleSet
from caudal.runs.spec import RunSpec
from caudal.runs.work.features import Features, Moments, Scaling
from caudal.runs.work.kind import Inputs, Statistics
from caudal.runs.work.missing import Watched
from caudal.runs.work.sought import Sought

NODE = "node"
_LAYERS, _NEIGHBOURS = 2, 10
_LOOKED_AT = 50_000  # nodes
_SCORED = -1  # the epoch of a draw that is always the same


def nodes_of(data: str) -> str | None:
    """The file of samples in a folder of one graph; `None` if it is none."""
    if is_remote(data):
        return None
    folder = local_path(data)
    return str(folder / NODES) if is_one_graph(folder) else None


def of_one_graph(inputs: Inputs) -> bool:
    """Whether samples are nodes of one graph."""
    return inputs.fields == (NODE,)


def graph_folder(samples: SampleSet) -> Path | None:
    """The folder of one graph whose nodes these samples are."""
    file = Path(samples.root)
    return file.parent if file.name == NODES and is_one_graph(file.parent) else None


def one_graph_inputs(folder: Path) -> Inputs:
    """See `Kind.inputs`."""
    graph = open_graph(folder)
    return Inputs(
        fields=(NODE,),
        count=graph.features,
        shape=_("one graph of {nodes} nodes and {edges} edges, {count} features a node").format(
            nodes=graph.nodes, edges=graph.edges, count=graph.features
        ),
        config={"per_node": True, "undirected": False, "edge_inputs": 0, "layers": _LAYERS},
        stored=(graph.features,),
        notes=(
            _("For each node at most {count} neighbours are drawn, and as many for each of these.").format(
                count=_NEIGHBOURS
            ),
        ),
    )


def one_graph_statistics(folder: Path, seed: int) -> Scaling:
    """Of the features of some thousand nodes."""
    graph = open_graph(folder)
    count = min(_LOOKED_AT, graph.nodes)
    drawn = np.sort(generator(seed, "look").choice(graph.nodes, count, replace=False, shuffle=False))
    moments = Moments(graph.features)
    moments.add(np.asarray(graph.x_NF[drawn], np.float64).reshape(count, -1))
    return moments.result()


def prepare_trees(
    spec: RunSpec,
    inputs: Inputs,
    sought: Sought,
    statistics: Statistics | None,
    device: str,
    training: bool,
) -> Callable[[Batch, slice], tuple[Any, Any]]:
    """See `Kind.prepare`: trees of neighbours, drawn anew in every epoch, and the roots' truth."""
    import torch

    from caudal.models.ragged import Graphs

    graph = open_graph(local_path(spec.data.images[0]))
    config = {**inputs.config, **spec.model.config}
    fan = [int(config.get("neighbours", _NEIGHBOURS))] * int(config["layers"])
    scaling = Scaling.model_validate(statistics.values["nodes"]) if statistics is not None else None
    scale = Features(scaling, inputs.stored[0], counts=not training)

    def prepare(batch: Batch, part: slice) -> tuple[Any, Any]:
        roots = np.array(batch.numpy(NODE)[part], np.int64)
        trees = draw_trees(graph, roots, fan, spec.seed, batch.epoch if training else _SCORED)
        rows = np.asarray(graph.x_NF[trees.nodes_N]).reshape(len(trees.nodes_N), -1)
        graphs = Graphs(
            torch.from_numpy(scale(rows)),
            torch.from_numpy(trees.edges_2E),
            torch.from_numpy(trees.root_N),
            len(roots),
            asked=len(roots),
        ).to(device)
        truth = torch.from_numpy(sought.truth(batch, np.arange(batch.size)[part]))
        return graphs, truth.to(device, non_blocking=True)

    return Watched(prepare, {"": scale})

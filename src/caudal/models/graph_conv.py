"""Graph networks through torch-geometric: GCN (Kipf and Welling, ICLR 2017), GIN (Xu et al., ICLR 2019; with
edge features Hu et al., ICLR 2020), GAT (Velickovic et al., ICLR 2018, in the form of Brody, Alon and Yahav,
ICLR 2022) and GraphSAGE (Hamilton, Ying and Leskovec, NeurIPS 2017).

Nothing is normalized over nodes, graphs or batches, and there is no dropout: a graph's scores do not depend
on what else is in its batch. torch-geometric is imported when a network is made: it takes 110 MB.
Legend: G graphs, N nodes, E edges, D edge features, C channels.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import ClassVar, Literal, Self, cast

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import nn

from caudal.core.config import Frozen
from caudal.core.errors import UsageError
from caudal.core.messages import _
from caudal.models.ragged import Graphs, filled
from caudal.models.recompute import again


class GraphConvConfig(Frozen):
    """`layers` of `width` channels, each added to what came in.

    `edge_inputs` is the number of edge features (0: none are used). With `undirected`, edges lead both ways,
    whether they are listed once or twice. With `per_node` there is an output for every node, else one for
    the graph, from its nodes by `readout`: `mean_max` is both beside each other. `heads` are those of a GAT.
    `indicator` adds a feature for each that says where it was missing. Of one large graph `neighbours` of
    each node are drawn at the most, and as many of each of these, as far as there are layers.
    """

    kind: Literal["gcn", "gin", "gat", "sage"] = "gin"
    width: int = Field(32, ge=1, le=4096)
    layers: int = Field(4, ge=1, le=64)
    heads: int = Field(4, ge=1, le=64)
    neighbours: int = Field(10, ge=1, le=1000)
    edge_inputs: int = Field(0, ge=0)
    undirected: bool = True
    readout: Literal["mean", "sum", "max", "mean_max", "attention"] = "mean_max"
    per_node: bool = False
    indicator: bool = False

    @model_validator(mode="after")
    def _heads_share_evenly(self) -> Self:
        if self.kind == "gat" and self.width % self.heads:
            raise ValueError(f"width ({self.width}) is no multiple of heads ({self.heads})")
        return self


class GraphConv(nn.Module):
    """Scores of `outputs` numbers for each graph with `inputs` node features, or for each of its nodes."""

    Config: ClassVar[type[GraphConvConfig]] = GraphConvConfig
    recompute_levels: ClassVar[int] = 1
    """Its layers are alike: all of them compute their activations again, or none."""

    def __init__(self, inputs: int, outputs: int, config: GraphConvConfig) -> None:
        super().__init__()
        self.config, self.inputs, self.outputs = config, inputs, outputs
        self.recompute = 0
        columns = 2 if config.indicator else 1
        self.nodes = nn.Linear(inputs * columns, config.width)
        self.edges = nn.Linear(config.edge_inputs * columns, config.width) if config.edge_inputs else None
        self.norms = nn.ModuleList(nn.LayerNorm(config.width) for _layer in range(config.layers))
        self.layers = nn.ModuleList(_layer(config) for _layer_number in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.gate = None
        if not config.per_node and config.readout == "attention":
            self.gate = nn.Linear(config.width, 1)
        both = not config.per_node and config.readout == "mean_max"
        self.hidden = nn.Linear(config.width * (2 if both else 1), config.width)
        self.head = nn.Linear(config.width, outputs)

    def forward(self, graphs: Graphs) -> torch.Tensor:
        """Scores (G, outputs), or (N, outputs) with `per_node`: of the nodes that are asked for."""
        if self.config.undirected:
            graphs = graphs.both_ways()
        x_NC = self.nodes(filled(graphs.x_NF, self.config.indicator))
        edges_EC = None
        if self.edges is not None:
            assert graphs.attr_ED is not None, "these graphs have no edge features"
            edges_EC = self.edges(filled(graphs.attr_ED, self.config.indicator))
        takes_edges = edges_EC is not None and self.config.kind in ("gin", "gat")
        if edges_EC is not None and not takes_edges:
            x_NC = x_NC + _pooled(edges_EC, graphs.edges_2E[1], len(x_NC), "mean")
        for norm, layer in zip(self.norms, self.layers, strict=True):
            x_NC = self._through(norm, layer, x_NC, graphs.edges_2E, edges_EC if takes_edges else None)
        x_NC = self.norm(x_NC)
        if graphs.asked:
            x_NC = x_NC[: graphs.asked]
        if not self.config.per_node:
            x_NC = self._readout(x_NC, graphs)
        scores: torch.Tensor = self.head(F.gelu(self.hidden(x_NC)))
        return scores

    def _through(
        self,
        norm: nn.Module,
        layer: nn.Module,
        x_NC: torch.Tensor,
        edges_2E: torch.Tensor,
        edges_EC: torch.Tensor | None,
    ) -> torch.Tensor:
        def run(x_NC: torch.Tensor, edges_2E: torch.Tensor, edges_EC: torch.Tensor | None) -> torch.Tensor:
            y_NC = F.gelu(norm(x_NC))
            added: torch.Tensor = x_NC + (
                layer(y_NC, edges_2E) if edges_EC is None else layer(y_NC, edges_2E, edges_EC)
            )
            return added

        if self.training and self.recompute and torch.is_grad_enabled():
            weights = (*norm.parameters(), *layer.parameters())
            return cast(torch.Tensor, again(run, x_NC, edges_2E, edges_EC, weights=weights))
        return run(x_NC, edges_2E, edges_EC)

    def _readout(self, x_NC: torch.Tensor, graphs: Graphs) -> torch.Tensor:
        """One vector for each graph; zeros for one without nodes."""
        if self.gate is None:
            pooled = [
                _pooled(x_NC, graphs.graph_N, graphs.count, how) for how in self.config.readout.split("_")
            ]
            return torch.cat(pooled, 1)
        share_N1 = _geometric().utils.softmax(self.gate(x_NC), graphs.graph_N, num_nodes=graphs.count)
        return _pooled(x_NC * share_N1, graphs.graph_N, graphs.count, "sum")

    @classmethod
    def from_shapes(cls, shapes: dict[str, tuple[int, ...]]) -> GraphConv | None:
        """Always `None`: shapes do not tell the readout, nor whether edges lead both ways."""
        return None


def _layer(config: GraphConvConfig) -> nn.Module:
    conv, width = _geometric().nn, config.width
    edge_dim = width if config.edge_inputs else None
    if config.kind == "gcn":
        layer: nn.Module = conv.GCNConv(width, width)
    elif config.kind == "sage":
        layer = conv.SAGEConv(width, width)
    elif config.kind == "gat":
        layer = conv.GATv2Conv(width, width // config.heads, config.heads, edge_dim=edge_dim)
    else:
        inner = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        layer = conv.GINEConv(inner, train_eps=True) if edge_dim else conv.GINConv(inner, train_eps=True)
    return layer


def _pooled(x: torch.Tensor, group: torch.Tensor, groups: int, how: str) -> torch.Tensor:
    pooled: torch.Tensor = _geometric().utils.scatter(x, group, dim_size=groups, reduce=how)
    return pooled


def _geometric() -> ModuleType:
    """torch-geometric, or one sentence about what to install.

    Raises:
        UsageError: it is not installed.
    """
    try:
        return import_module("torch_geometric")
    except ImportError as error:
        raise UsageError(
            _("Graph networks need torch-geometric, which cannot be imported: {why}.").format(why=error),
            _("Install it: pip install 'caudal[graph]'."),
        ) from None

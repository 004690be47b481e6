"""Graphs: what is told of each, or of each of its nodes."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from caudal.tasks.scorers.base import TargetScorer, scorer_of
from caudal.tasks.targets import Target


@dataclass(frozen=True)
class NodeTruth:
    """The truth of the nodes of `count` graphs: `values` (N,) or (N, K), `graph_N` the graph of each."""

    values: torch.Tensor
    graph_N: torch.Tensor
    count: int


class Graph:
    """Learn a `target` of whole graphs, or of their nodes.

    Legend: G graphs, N nodes of all of them, K outputs.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self.headline = target.headline

    def outputs(self) -> int:
        """Numbers for each graph or node."""
        return self.target.outputs

    def loss(self, output: torch.Tensor, target: torch.Tensor | NodeTruth) -> torch.Tensor:
        """Loss of each sample.

        With a tensor, (G,) or (G, K), `output` is (G, K) and so is the loss (G,): of graphs, or of nodes
        where a sample is a node, as in one large graph. With a `NodeTruth`, `output` is (N, K), and the loss
        (G,) of each graph is the mean over its nodes whose truth is known, 0 without any.
        """
        if isinstance(target, torch.Tensor):
            return self.target.loss(output, target)[0]
        loss_N, known_N = self.target.loss(output, target.values)
        sums = loss_N.new_zeros(target.count).index_add(0, target.graph_N, loss_N)
        counts = loss_N.new_zeros(target.count).index_add(0, target.graph_N, known_N.to(loss_N.dtype))
        return sums / counts.clamp(min=1)

    def probabilities(self, output: torch.Tensor) -> torch.Tensor:
        """Probabilities, or numbers in their own units, float32."""
        return self.target.probabilities(output)

    def scorer(self) -> TargetScorer:
        """A new, empty scorer, at the thresholds of the target."""
        return scorer_of(self.target)

"""Sequences: what is told of each, or of each of its steps."""

from __future__ import annotations

import torch

from caudal.tasks.scorers.base import TargetScorer, scorer_of
from caudal.tasks.targets import Target, mean_of_known


class Sequence:
    """Learn a `target` of whole sequences, or of their steps: the shape of a truth says which.

    Legend: B sequences, T steps, K outputs. Steps after a sequence's end have an unknown truth.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self.headline = target.headline

    def outputs(self) -> int:
        """Numbers for each sequence or step."""
        return self.target.outputs

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Loss of each sequence (B,); of one with a truth for each step the mean over those that have one.

        `output` is (B, K) with `target` (B,) or (B, K); or (B, T, K) with (B, T) or (B, T, K). A sequence
        of which nothing is known has loss 0.
        """
        return mean_of_known(*self.target.loss(output, target))

    def probabilities(self, output: torch.Tensor) -> torch.Tensor:
        """Probabilities, or numbers in their own units, float32."""
        return self.target.probabilities(output)

    def scorer(self) -> TargetScorer:
        """A new, empty scorer, at the thresholds of the target."""
        return scorer_of(self.target)

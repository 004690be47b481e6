"""The contract between a task and the engine: a loss, scores, and what a prediction means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:  # whoever only plans has no torch
    import torch

Metrics = dict[str, float | None]
"""Flat figures; `None` is a figure that the data do not define."""


class Scorer(Protocol):
    """Gathers predictions piece by piece, in memory that does not grow with the pixels."""

    def add(self, image: int, predicted_HW: npt.NDArray[np.uint8], truth_HW: npt.NDArray[np.uint8]) -> None:
        """Take a piece of image `image`: class numbers, 255 where there is no truth."""
        ...

    def result(self) -> Metrics:
        """The figures over all that was taken."""
        ...

    def warnings(self) -> list[str]:
        """What must be said beside the figures."""
        ...


class Task(Protocol):
    """What the training loop asks of a task. B samples; all else is between the task and its model."""

    headline: str
    """The metric that is better when it is larger, by which models are compared."""

    def outputs(self) -> int:
        """Channels, or numbers, of the model's output."""
        ...

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """One loss for each sample, shape (B,): their mean over a batch is what is minimized.

        A sum over samples splits into micro-batches without changing the gradient.
        """
        ...

    def probabilities(self, output: torch.Tensor) -> torch.Tensor:
        """What the output means, float32, same shape."""
        ...


class MapTask(Task, Protocol):
    """A task whose output is a map: (B, K, H, W) scores for (B, H, W) class numbers."""

    def scorer(self) -> Scorer:
        """A new, empty scorer."""
        ...

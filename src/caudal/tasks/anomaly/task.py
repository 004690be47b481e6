"""Anomalies: learn to give normal images back, and score what does not come back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from caudal.tasks.anomaly.metrics import AnomalyScorer

if TYPE_CHECKING:  # whoever only plans has no torch
    import torch


class Anomaly:
    """Learn what is normal. With labelled anomalies compared by `image_auroc`, else by the loss."""

    def __init__(
        self,
        labelled: bool = False,
        image_threshold: float | None = None,
        pixel_threshold: float | None = None,
    ) -> None:
        self.headline = "image_auroc" if labelled else "negative_loss"
        self.image_threshold, self.pixel_threshold = image_threshold, pixel_threshold

    def outputs(self) -> int:
        """One channel: the score."""
        return 1

    @staticmethod
    def target(x_BCHW: torch.Tensor, valid_BHW: torch.Tensor | None = None) -> torch.Tensor:
        """What a model has to give back: its input, NaN where a pixel is not valid."""
        if valid_BHW is None:
            return x_BCHW
        return x_BCHW.masked_fill(~valid_BHW[:, None], float("nan"))

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Mean squared error of each reconstruction over its valid values, shape (B,).

        Both are (B, C, H, W); a value that is NaN in `target` does not count. A sample without any valid
        value has loss 0.
        """
        unknown = target.isnan()
        gap = (output.float() - target.float().masked_fill(unknown, 0.0)).masked_fill(unknown, 0.0)
        return gap.square().sum((1, 2, 3)) / (~unknown).sum((1, 2, 3)).clamp(min=1)

    def probabilities(self, output: torch.Tensor) -> torch.Tensor:
        """The scores as they are, float32: they have no upper end."""
        return output.float()

    def scorer(self) -> AnomalyScorer:
        """A new, empty scorer, with the thresholds of this task."""
        return AnomalyScorer(self.image_threshold, self.pixel_threshold)

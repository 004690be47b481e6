"""Segmentation: cross-entropy and Dice, IoU and Dice scores."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from caudal.core.labels import IGNORE
from caudal.tasks.segmentation.metrics import SegmentationScorer


class Segmentation:
    """Learn a class for every pixel; `class_names` in the order of class numbers."""

    headline = "iou"

    def __init__(self, class_names: tuple[str, ...], class_weights: tuple[float, ...] | None = None) -> None:
        self.class_names = class_names
        self._weights = class_weights

    def outputs(self) -> int:
        """One channel a class."""
        return len(self.class_names)

    def loss(self, scores_BKHW: torch.Tensor, target_BHW: torch.Tensor) -> torch.Tensor:
        """Cross-entropy + Dice loss of each sample over its pixels that have a class, shape (B,).

        Dice is the soft Dice of Milletari et al. (3DV 2016), averaged over the classes but the first,
        with one pixel added on both sides so that an absent class gives no infinite gradient. A sample
        without any known pixel has loss 0.
        """
        scores_BKHW = scores_BKHW.float()
        target_BHW = target_BHW.long()
        known_BHW = target_BHW != IGNORE
        weights = None if self._weights is None else scores_BKHW.new_tensor(self._weights)
        entropy_BHW = F.cross_entropy(
            scores_BKHW, target_BHW, weight=weights, ignore_index=IGNORE, reduction="none"
        )
        known = known_BHW.sum((1, 2)).clamp(min=1)
        entropy_B = entropy_BHW.sum((1, 2)) / known
        return entropy_B + self._dice_loss(scores_BKHW, target_BHW, known_BHW)

    def _dice_loss(
        self, scores_BKHW: torch.Tensor, target_BHW: torch.Tensor, known_BHW: torch.Tensor
    ) -> torch.Tensor:
        p_BKHW = scores_BKHW.softmax(1) * known_BHW[:, None]
        losses = []
        for k in range(1, p_BKHW.shape[1]):
            truth = target_BHW == k
            both = (p_BKHW[:, k] * truth).sum((1, 2))
            size = p_BKHW[:, k].sum((1, 2)) + truth.sum((1, 2))
            losses.append(1 - (2 * both + 1) / (size + 1))
        return torch.stack(losses).mean(0)

    def probabilities(self, scores_BKHW: torch.Tensor) -> torch.Tensor:
        """Softmax over the classes, float32."""
        return scores_BKHW.float().softmax(1)

    def scorer(self) -> SegmentationScorer:
        """A new, empty scorer."""
        return SegmentationScorer(self.class_names)

"""Classification: cross-entropy over two or more classes, one of them for each image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from caudal.tasks.classification.scorer import ClassificationScorer


class Classification:
    """Learn one class for every image; `class_names` in the order of class numbers.

    With two classes the second is the positive one. `class_weights` multiply each sample's loss (see
    `balanced_weights`); `label_smoothing` is the share of a target that goes to all classes evenly.
    `temperature` divides scores before they become probabilities: fitted on held-out data once trained.
    Samples that share a value in the column `resample_by` (a patient) are drawn together for intervals.
    """

    # Not a figure at a threshold: it moves with every sample that changes place, where balanced accuracy of
    # a small held-out part moves in leaps; and class weights, which shift every decision, leave it alone.
    headline = "auroc"

    def __init__(
        self,
        class_names: tuple[str, ...],
        class_weights: tuple[float, ...] | None = None,
        label_smoothing: float = 0.0,
        temperature: float = 1.0,
        resample_by: str | None = None,
    ) -> None:
        assert len(class_names) > 1
        assert class_weights is None or len(class_weights) == len(class_names)
        self.class_names = class_names
        self.temperature = temperature
        self._weights = class_weights
        self._smoothing = label_smoothing
        self._resample_by = resample_by

    def outputs(self) -> int:
        """One score a class, for two classes also."""
        return len(self.class_names)

    def loss(self, scores_BK: torch.Tensor, target_B: torch.Tensor) -> torch.Tensor:
        """Cross-entropy of each sample, times its class's weight, shape (B,) float32."""
        target_B = target_B.long()
        loss_B = F.cross_entropy(
            scores_BK.float(), target_B, reduction="none", label_smoothing=self._smoothing
        )
        if self._weights is None:
            return loss_B
        # Not `weight=` of torch: with smoothing it would weigh each sample by other samples' classes too.
        return loss_B * loss_B.new_tensor(self._weights)[target_B]

    def probabilities(self, scores_BK: torch.Tensor) -> torch.Tensor:
        """Softmax over the classes at the task's temperature, float32."""
        return (scores_BK.float() / self.temperature).softmax(1)

    def scorer(self, threshold: float | None = None) -> ClassificationScorer:
        """A new, empty scorer; two classes are told apart at `threshold`, else the likelier one is taken."""
        return ClassificationScorer(self.class_names, threshold=threshold, resample_by=self._resample_by)


def balanced_weights(samples_K: Sequence[int]) -> tuple[float, ...]:
    """Weights with which each class counts the same, 1 on average over the samples; 0 for an absent one."""
    present = sum(1 for count in samples_K if count)
    total = sum(samples_K)
    return tuple(total / (present * count) if count else 0.0 for count in samples_K)

"""What is to be told of a sample, a step or a node: classes, labels or numbers; its loss, and its meaning.

Shared by tasks that learn from features; it knows no task, and does not score (`scorers`).
Legend: K outputs, … any leading axes (samples; samples and steps; nodes).
"""

from __future__ import annotations

from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator

from caudal.core.config import Frozen
from caudal.tasks.metrics.thresholded import called_positive

Kind = Literal["binary", "multiclass", "multilabel", "regression"]


class Target(Frozen):
    """One of four kinds.

    `binary`: the second of two classes or not (`names` are both). `multiclass`: one of the classes `names`.
    `multilabel`: each of the labels `names` or not. `regression`: the numbers `names`, learned in units of
    their `deviations` from their `means`. Where a truth is unknown it is NaN, or below 0 where classes and
    labels are whole numbers: it is not learned from and not scored. `weights` are how much a class, or a
    label that applies, counts against others. `thresholds` are the probabilities from which on the second
    class, or each label, is called: chosen on held-out data, 0.5 until then.
    """

    kind: Kind
    names: tuple[str, ...] = Field(min_length=1)
    weights: tuple[float, ...] | None = None
    means: tuple[float, ...] = ()
    deviations: tuple[float, ...] = ()
    thresholds: tuple[float, ...] = ()

    @model_validator(mode="after")
    def _columns_agree(self) -> Self:
        count = len(self.names)
        if (self.kind == "binary" and count != 2) or (self.kind == "multiclass" and count < 2):
            raise ValueError(f"{count} classes for a {self.kind} target")
        if self.weights is not None and len(self.weights) != count:
            raise ValueError(f"{len(self.weights)} weights for {count} names")
        if self.kind == "regression" and not len(self.means) == len(self.deviations) == count:
            raise ValueError("a regression target has a mean and a deviation for each name")
        if self.thresholds and len(self.thresholds) != self._decisions:
            raise ValueError(f"{len(self.thresholds)} thresholds for {self._decisions} decisions")
        if not all(value > 0 for value in (*self.deviations, *(self.weights or ()))):
            raise ValueError("deviations and weights are above 0")
        return self

    @property
    def outputs(self) -> int:
        """Numbers that a model gives for each sample, step or node."""
        return 1 if self.kind == "binary" else len(self.names)

    @property
    def _decisions(self) -> int:
        """Outputs that a threshold decides on."""
        return self.outputs if self.kind in ("binary", "multilabel") else 0

    @property
    def headline(self) -> str:
        """The figure by which models are compared."""
        return {"multiclass": "accuracy", "regression": "r2"}.get(self.kind, "auroc")

    @property
    def is_wide(self) -> bool:
        """Whether a truth has an axis of K numbers, or is one number."""
        return self.kind in ("multilabel", "regression")

    def loss(self, output: torch.Tensor, truth: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss (…) of `output` (…, K), 0 where the truth is unknown; and whether it is known (…).

        `truth` is (…), or (…, K) where it is wide; one number a sample may lack that axis. Cross-entropy
        for classes and labels, squared error in deviations for numbers; over K the mean of what is known.
        """
        output = output.float()
        if self.kind == "multiclass":
            known = known_of(truth)
            classes = torch.where(known, truth, 0).long()
            # Over one leading axis: cross_entropy wants classes in the second.
            entropy = F.cross_entropy(output.flatten(0, -2), classes.flatten(), reduction="none")
            entropy = entropy.view(known.shape) * self._weights(output)[classes]
            return torch.where(known, entropy, 0.0), known
        wide = truth.reshape(output.shape)
        known = known_of(wide, self.kind == "regression")
        sought = torch.where(known, wide, 0).to(output.dtype)
        if self.kind == "regression":
            each = (output - self._scaled(sought)).square()
        else:
            each = F.binary_cross_entropy_with_logits(output, sought, reduction="none")
            each = each * self._weights_of_truth(sought)
        count = known.sum(-1)
        return torch.where(known, each, 0.0).sum(-1) / count.clamp(min=1), count > 0

    def probabilities(self, output: torch.Tensor) -> torch.Tensor:
        """What scores (…, K) mean, float32: probabilities, or numbers in their own units."""
        output = output.float()
        if self.kind == "regression":
            return output * output.new_tensor(self.deviations) + output.new_tensor(self.means)
        return output.softmax(-1) if self.kind == "multiclass" else output.sigmoid()

    def decided(self, probabilities: npt.NDArray[np.floating]) -> npt.NDArray[Any]:
        """What probabilities (…, K) come to: class numbers (…), labels that apply (…, K), or the numbers."""
        if self.kind == "regression":
            return probabilities
        if self.kind == "multiclass":
            return np.asarray(probabilities.argmax(-1))
        thresholds = self.thresholds or (0.5,) * self.outputs
        columns = [called_positive(probabilities[..., k], at) for k, at in enumerate(thresholds)]
        return columns[0].astype(np.int64) if self.kind == "binary" else np.stack(columns, -1)

    def _scaled(self, numbers: torch.Tensor) -> torch.Tensor:
        return (numbers - numbers.new_tensor(self.means)) / numbers.new_tensor(self.deviations)

    def _weights(self, like: torch.Tensor) -> torch.Tensor:
        return like.new_tensor(self.weights or (1.0,) * len(self.names))

    def _weights_of_truth(self, sought: torch.Tensor) -> torch.Tensor:
        """Of two classes each has its own weight; a label has one where it applies, else 1."""
        weights = self._weights(sought)
        one, other = (weights[1:], weights[:1]) if self.kind == "binary" else (weights, 1.0)
        return sought * one + (1 - sought) * other


def known_of(truth: torch.Tensor, numbers: bool = False) -> torch.Tensor:
    """Which truths are known: finite, and unless they are `numbers`, not below 0."""
    known = torch.isfinite(truth) if truth.is_floating_point() else torch.ones_like(truth, dtype=torch.bool)
    return known if numbers else known & (truth >= 0)


def known_in(truth: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """As `known_of`, of classes and labels in an array."""
    return np.asarray(np.isfinite(truth) & (truth >= 0))


def mean_of_known(loss: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """The mean over all axes but the first of what is known, shape (B,); 0 where nothing is."""
    if loss.ndim == 1:
        return loss
    return loss.flatten(1).sum(1) / known.flatten(1).sum(1).clamp(min=1)

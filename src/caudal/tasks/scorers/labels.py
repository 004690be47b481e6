"""Scores of labels of which any number may apply, gathered piece by piece.

Legend: N samples (or steps, or nodes), K labels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from caudal.tasks.base import Metrics
from caudal.tasks.metrics import thresholded
from caudal.tasks.metrics.figures import Floats, check_finite, figure
from caudal.tasks.metrics.ranking import auroc, average_precision
from caudal.tasks.scorers.ordered import EXACT, Ordered
from caudal.tasks.scorers.rows import Rows, absent, curves, figure_rows, mean_there
from caudal.tasks.targets import Target, known_in


class LabelScorer:
    """Labels of which any number apply; each is scored over the samples where it is known."""

    def __init__(self, target: Target) -> None:
        self._target, self._names = target, target.names
        self._ordered = [Ordered(EXACT // len(target.names)) for _name in target.names]
        self._confusion = np.zeros((len(target.names), 2, 2))
        self._samples = 0

    def add(self, probabilities: npt.NDArray[np.floating], truth: npt.NDArray[Any]) -> None:
        """Take probabilities and truths (…, K): 1 where a label applies, else 0."""
        p_NK = probabilities.reshape(-1, len(self._names))
        truth_NK = truth.reshape(p_NK.shape)
        known_NK = known_in(truth_NK)
        check_finite(p_NK[known_NK])
        called_NK = self._target.decided(p_NK)
        for k, ordered in enumerate(self._ordered):
            known_N = known_NK[:, k]
            applies_N = truth_NK[known_N, k] > 0
            ordered.add(p_NK[known_N, k], applies_N)
            self._confusion[k] += thresholded.confusion(
                applies_N.astype(np.int64), called_NK[known_N, k].astype(np.int64), 2
            )
        self._samples += int(known_NK.any(1).sum())

    def _by_label(self) -> dict[str, Floats]:
        tallies = [ordered.tally() for ordered in self._ordered]
        return {
            "auroc": np.array([float(auroc(tally)) for tally in tallies]),
            "average_precision": np.array([float(average_precision(tally)) for tally in tallies]),
            "f1": self._of_tables(thresholded.f1),
            "precision": self._of_tables(thresholded.precision),
            "recall": self._of_tables(thresholded.recall),
            "accuracy": np.array([float(thresholded.accuracy(table)) for table in self._confusion]),
        }

    def _of_tables(self, kind: Callable[[Floats], Floats]) -> Floats:
        """A figure of those to whom the label applies; NaN where it applies to none."""
        return np.array([kind(table)[1] if table[1].sum() else np.nan for table in self._confusion])

    def result(self) -> Metrics:
        """`auroc`, `average_precision`, `f1`, `precision`, `recall`, `accuracy`: means over the labels that
        define them; `samples`; and of each label `…_<label>` and `support_<label>`.
        """  # fmt: skip
        by_label = self._by_label()
        found: Metrics = {kind: figure(mean_there(values)) for kind, values in by_label.items()}
        found["samples"] = float(self._samples)
        for k, name in enumerate(self._names):
            found |= {f"{kind}_{name}": figure(values[k]) for kind, values in by_label.items()}
            found[f"support_{name}"] = float(self._confusion[k, 1].sum())
        return found

    def best_thresholds(self) -> tuple[float, ...] | None:
        """The threshold of best F1 for each label; 0.5 where a label gives nothing to choose by."""
        found = [thresholded.best_threshold(ordered.tally()) for ordered in self._ordered]
        if all(best is None for best in found):
            return None
        return tuple(0.5 if best is None else best for best in found)

    def warnings(self) -> list[str]:
        """Names the labels that apply to no sample, or to all."""
        return absent(self._names, np.minimum(self._confusion[:, 1].sum(1), self._confusion[:, 0].sum(1)))

    def tables(self) -> dict[str, Rows]:
        """`classes` and `roc`."""
        by_label = self._by_label()
        table = self._confusion
        counts = {"support": table[:, 1].sum(1), "known": table.sum((1, 2))}
        classes = figure_rows("class", self._names, counts, by_label)
        roc = {name: one.tally() for name, one in zip(self._names, self._ordered, strict=True)}
        return {"classes": classes, "roc": curves(roc)}

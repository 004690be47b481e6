"""Scores of one class out of several, gathered piece by piece.

Legend: N samples (or steps, or nodes), K outputs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from caudal.tasks.base import Metrics
from caudal.tasks.metrics import calibration, thresholded
from caudal.tasks.metrics.figures import Floats, check_finite, figure
from caudal.tasks.metrics.ranking import Tally, auroc, average_precision
from caudal.tasks.scorers.ordered import EXACT, Ordered
from caudal.tasks.scorers.reliability import RunningReliability
from caudal.tasks.scorers.rows import Row, Rows, absent, curves, figure_rows, mean_there
from caudal.tasks.targets import Target, known_in


class ClassScorer:
    """One class out of several, or the second of two."""

    def __init__(self, target: Target) -> None:
        self._target, self._names = target, target.names
        self._ranked = [1] if target.kind == "binary" else list(range(len(target.names)))
        self._ordered = {k: Ordered(EXACT // len(self._ranked)) for k in self._ranked}
        self._confusion = np.zeros((len(target.names),) * 2)
        self._reliability = RunningReliability()
        self._squares = 0.0

    def add(self, probabilities: npt.NDArray[np.floating], truth: npt.NDArray[Any]) -> None:
        """Take probabilities (…, K), of two classes (…, 1), and class numbers (…)."""
        p_NK, truth_N = probabilities.reshape(-1, probabilities.shape[-1]), truth.reshape(-1)
        known_N = known_in(truth_N)
        p_NK, truth_N = p_NK[known_N], truth_N[known_N].astype(np.int64)
        if not len(p_NK):
            return
        check_finite(p_NK)
        self._confusion += thresholded.confusion(truth_N, self._target.decided(p_NK), len(self._names))
        if p_NK.shape[1] == 1:
            p_NK = np.concatenate([1 - p_NK, p_NK], 1)
        for k, ordered in self._ordered.items():
            ordered.add(p_NK[:, k], truth_N == k)
        self._squares += calibration.brier(p_NK, truth_N) * len(truth_N)
        self._reliability.add(*calibration.confidence(p_NK, truth_N))

    def result(self) -> Metrics:
        """`auroc`, `average_precision`, `f1`, `precision`, `recall`, `accuracy`, `balanced_accuracy`,
        `brier`, `ece`, `samples`, and of each class `…_<class>` and `support_<class>`.

        Of two classes, those without a class's name are the second class's, at `threshold`; of more, means
        over the classes that have samples.
        """  # fmt: skip
        table, total = self._confusion, float(self._confusion.sum())
        present = table.sum(1) > 0
        by_class = self._by_class()
        found: Metrics = {
            name: figure(values[1] if self._binary else mean_there(values[present]))
            for name, values in by_class.items()
        }
        found["accuracy"] = figure(float(thresholded.accuracy(table)))
        found["balanced_accuracy"] = figure(thresholded.balanced_accuracy(table))
        found["brier"] = self._squares / total if total else None
        found["ece"] = figure(self._reliability.result().error)
        if self._binary:
            found["threshold"] = (self._target.thresholds or (0.5,))[0]
        found["samples"] = total
        for k, name in enumerate(self._names):
            found |= {f"{kind}_{name}": figure(values[k]) for kind, values in by_class.items()}
            found[f"support_{name}"] = float(table[k].sum())
        return found

    @property
    def _binary(self) -> bool:
        return self._target.kind == "binary"

    def _by_class(self) -> dict[str, Floats]:
        table, count = self._confusion, len(self._names)
        area, precise = np.full(count, np.nan), np.full(count, np.nan)
        for k, ordered in self._ordered.items():
            tally = ordered.tally()
            area[k], precise[k] = auroc(tally), average_precision(tally)
        if self._binary:
            area[0] = area[1]  # the other way round, it is the same
            tally = self._ordered[1].tally()
            turned = Tally(1 - tally.scores_T[::-1], tally.negatives[::-1], tally.positives[::-1])
            precise[0] = average_precision(turned)
        return {
            "auroc": area,
            "average_precision": precise,
            "f1": np.where(table.sum(1) > 0, thresholded.f1(table), np.nan),
            "precision": thresholded.precision(table),
            "recall": thresholded.recall(table),
        }

    def best_thresholds(self) -> tuple[float, ...] | None:
        """Of two classes, the threshold of best F1; of more there is none."""
        best = thresholded.best_threshold(self._ordered[1].tally()) if self._binary else None
        return None if best is None else (best,)

    def warnings(self) -> list[str]:
        """Names the classes that no sample has."""
        return absent(self._names, self._confusion.sum(1))

    def tables(self) -> dict[str, Rows]:
        """`classes`, `confusion` (truth by row), `roc` and `reliability`."""
        by_class, support = self._by_class(), self._confusion.sum(1)
        classes = figure_rows("class", self._names, {"support": support}, by_class)
        confusion: Rows = []
        for k, name in enumerate(self._names):
            row: Row = {"truth": name}
            row |= dict(zip(self._names, self._confusion[k].tolist(), strict=True))
            confusion.append(row)
        roc = curves({self._names[k]: ordered.tally() for k, ordered in self._ordered.items()})
        return {
            "classes": classes,
            "confusion": confusion,
            "roc": roc,
            "reliability": self._reliability.rows(),
        }

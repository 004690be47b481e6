"""How good decisions are: figures of a confusion matrix, and thresholds chosen where they are learned.

A class that no sample has, and a ratio of nothing to nothing, are NaN, never 0. Legend: N samples, K classes,
T distinct scores, … any leading axes.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from caudal.tasks.metrics.figures import Floats, ratio
from caudal.tasks.metrics.ranking import Tally


def confusion(truth_N: npt.NDArray[np.integer], predicted_N: npt.NDArray[np.integer], classes: int) -> Floats:
    """Samples by truth (row) and prediction (column): `(classes, classes)`."""
    pairs = truth_N.astype(np.int64) * classes + predicted_N
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes).astype(np.float64)


def accuracy(table: Floats) -> Floats:
    """Share of the samples on the diagonal."""
    return ratio(np.trace(table), table.sum())


def recall(table: Floats) -> Floats:
    """Share of each class's samples that were found (K,)."""
    return ratio(np.diagonal(table), table.sum(1))


def precision(table: Floats) -> Floats:
    """Share of each class's predictions that were right (K,)."""
    return ratio(np.diagonal(table), table.sum(0))


def f1(table: Floats) -> Floats:
    """Harmonic mean of precision and recall of each class (K,); NaN for one that is nowhere."""
    return ratio(2 * np.diagonal(table), table.sum(0) + table.sum(1))


def specificity(table: Floats) -> Floats:
    """Share of the samples of other classes that were not taken for each class (K,)."""
    others = table.sum() - table.sum(1)
    return ratio(others - (table.sum(0) - np.diagonal(table)), others)


def balanced_accuracy(table: Floats) -> float:
    """Mean recall of the classes that samples have; NaN where all samples have one."""
    present = table.sum(1) > 0
    return float(recall(table)[present].mean()) if present.sum() > 1 else float("nan")


def best_threshold(tally: Tally, by: Literal["f1", "balanced_accuracy"] = "f1") -> float | None:
    """The threshold, in the middle between two scores, from which on calling positive is best.

    Of one tally; of equally good ones the highest. To be chosen on data that the figures are not
    reported on. `None` with one class, or where all scores are equal: there is nothing to choose.
    """
    positives, negatives = tally.positives.sum(), tally.negatives.sum()
    if len(tally.scores_T) < 2 or not (positives and negatives):
        return None
    found, false = tally.found[1:], tally.false[1:]
    merit = 2 * found / (positives + found + false) if by == "f1" else found / positives - false / negatives
    best = int(merit.argmax())
    lowest = float(tally.scores_T[best])
    if best + 1 == len(tally.scores_T):
        return lowest  # everything is positive
    middle = (lowest + float(tally.scores_T[best + 1])) / 2
    return middle if middle > tally.scores_T[best + 1] else lowest


def called_positive(scores_N: npt.NDArray[np.floating], threshold: float) -> npt.NDArray[np.bool_]:
    """Which scores are at or above `threshold`, compared in float64, as the threshold was chosen."""
    return scores_N.astype(np.float64) >= threshold

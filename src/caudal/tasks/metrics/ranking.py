"""How well scores rank the positive above the negative samples: figures that need no threshold.

All are functions of a `Tally`: how many positive and negative samples have each distinct score. Tied scores
stand or fall together, as in scikit-learn. Leading axes are resamples, so that an interval costs no loop
over them. Legend: N samples, T distinct scores from the highest down, … any leading axes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from caudal.tasks.metrics.figures import Floats, check_finite, ratio


@dataclass(frozen=True)
class Tally:
    """Samples at each distinct score: `scores_T` falls, the others have shape (…, T)."""

    scores_T: Floats
    positives: Floats
    negatives: Floats

    @cached_property
    def found(self) -> Floats:
        """Positives at or above each score, after a leading 0: shape (…, T + 1)."""
        return _running(self.positives)

    @cached_property
    def false(self) -> Floats:
        """Negatives at or above each score, after a leading 0: shape (…, T + 1)."""
        return _running(self.negatives)


class Ranking:
    """Scores brought in order once, to be counted under any number of weightings.

    `scores_N` are finite numbers, `positive_N` says which samples are positive.

    Raises:
        BadValues: a score is NaN or infinite.
    """

    def __init__(self, scores_N: npt.NDArray[np.floating], positive_N: npt.NDArray[np.bool_]) -> None:
        assert scores_N.shape == positive_N.shape
        assert scores_N.ndim == 1
        check_finite(scores_N)
        self._order = np.argsort(-scores_N, kind="stable")
        ordered = scores_N[self._order].astype(np.float64)
        self._starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(ordered) else _NONE
        self._positive = positive_N[self._order].astype(np.float64)
        self._scores_T = ordered[self._starts]

    def tally(self, weights: Floats | None = None) -> Tally:
        """Count the samples, each as often as `weights` (…, N) says: once without."""
        ordered = np.ones(len(self._order)) if weights is None else weights[..., self._order]
        positives = ordered * self._positive
        return Tally(self._scores_T, self._counted(positives), self._counted(ordered - positives))

    def _counted(self, values: Floats) -> Floats:
        if len(self._starts) == len(self._order):
            return values  # no ties
        counted: Floats = np.add.reduceat(values, self._starts, axis=-1)
        return counted


_NONE = np.zeros(0, np.intp)


def auroc(tally: Tally) -> Floats:
    """Area under the ROC curve: how often a positive beats a negative, ties for half; NaN with one class."""
    beaten_by = np.cumsum(tally.negatives, axis=-1)
    beaten_by -= 0.5 * tally.negatives
    lost = np.einsum("...t,...t->...", tally.positives, beaten_by)
    pairs = tally.positives.sum(-1) * tally.negatives.sum(-1)
    return 1 - ratio(lost, pairs)


def average_precision(tally: Tally) -> Floats:
    """Precision at each score, weighted by the recall gained there; NaN without positives."""
    found, false = tally.found[..., 1:], tally.false[..., 1:]
    gained = tally.positives * np.nan_to_num(ratio(found, found + false))
    return ratio(gained.sum(-1), tally.positives.sum(-1))


def pauc_above_tpr(tally: Tally, tpr: float) -> Floats:
    """Area between the ROC curve and the line `tpr`, at most 1 - `tpr`; NaN with one class.

    Not normalized: with `tpr` 0.8 the score of the ISIC 2024 challenge, which runs from 0 to 0.2.
    """
    found = ratio(tally.found, tally.positives.sum(-1)[..., None])
    specific = 1 - ratio(tally.false, tally.negatives.sum(-1)[..., None])
    # Along the curve, each piece's share of TPR that lies above the line, and the specificity over it.
    rise = found[..., 1:] - found[..., :-1]
    above = found[..., 1:] - np.maximum(found[..., :-1], tpr)
    share = np.clip(np.divide(above, rise, out=np.zeros_like(rise), where=rise > 0), 0, 1)
    late = specific[..., 1:]
    early = late + (specific[..., :-1] - late) * share
    return np.where(_has_both(tally), (rise * share * (early + late) / 2).sum(-1), np.nan)


def sensitivity_at_specificity(tally: Tally, specificity: float) -> Floats:
    """The best true-positive rate of a threshold with at least `specificity`; NaN with one class."""
    return _best(tally.found, tally.false, specificity)


def specificity_at_sensitivity(tally: Tally, sensitivity: float) -> Floats:
    """The best true-negative rate of a threshold with at least `sensitivity`; NaN with one class."""
    right, missed = tally.false[..., -1:] - tally.false, tally.found[..., -1:] - tally.found
    return _best(right, missed, sensitivity)


def _best(found: Floats, lost: Floats, kept: float) -> Floats:
    """The largest share of one class that is `found` where no more than 1 - `kept` of the other is `lost`.

    Both are counts (…, T + 1) at each threshold, whole numbers, and all of a class somewhere.
    """
    whole_found, whole_lost = found.max(-1), lost.max(-1)
    # As shares (n - lost) / n, not 1 - lost / n: 9 of 10 must be 0.9 to the last bit.
    most = np.floor(whole_lost * (1 - kept))
    most += ratio(whole_lost - most - 1, whole_lost) >= kept
    most -= ratio(whole_lost - most, whole_lost) < kept
    best = np.max(found, -1, initial=0, where=lost <= most[..., None])
    return np.where(whole_lost > 0, ratio(best, whole_found), np.nan)


def roc_points(tally: Tally, most: int = 200) -> list[tuple[float, float]]:
    """(false-positive rate, true-positive rate) from (0, 0) to (1, 1), corners alone; at most about `most`.

    Of one tally, without leading axes. Empty where a class is absent.
    """
    positives, negatives = tally.positives.sum(), tally.negatives.sum()
    if not (positives and negatives):
        return []
    false, found = tally.false / negatives, tally.found / positives
    right, up = tally.negatives, tally.positives
    bends = right[:-1] * up[1:] != right[1:] * up[:-1]
    corners = np.flatnonzero(np.r_[True, bends, True])
    if len(corners) > most:
        corners = corners[np.linspace(0, len(corners) - 1, most).round().astype(int)]
    return [(float(false[k]), float(found[k])) for k in corners]


def _has_both(tally: Tally) -> npt.NDArray[np.bool_]:
    return np.asarray((tally.positives.sum(-1) > 0) & (tally.negatives.sum(-1) > 0))


def _running(values: Floats) -> Floats:
    begin = np.zeros((*values.shape[:-1], 1))
    return np.concatenate([begin, np.cumsum(values, axis=-1)], axis=-1)

"""Counts of scores in bins of constant relative width: what a stream of any length leaves behind.

Bins whose edges grow by a constant factor know every score to the same share of itself, whatever its unit
(Masson, Rim and Lee, "DDSketch", VLDB 2019). No threshold is chosen here and no curve drawn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

RELATIVE_ERROR = 1e-3
"""Scores that differ by more than this share of themselves are never in one bin."""
SMALLEST, LARGEST = 1e-8, 1e8
_STEP = float(np.log1p(RELATIVE_ERROR))
_HALF = int(np.ceil(np.log(LARGEST / SMALLEST) / _STEP))
BINS = 2 * _HALF + 1


def bin_of(scores: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
    """The bin of each score, in the scores' order: a larger score is never in a lower bin.

    Scores nearer to 0 than `SMALLEST` share a bin; those beyond `LARGEST` are in the last one.
    """
    values = np.asarray(scores, np.float64)
    size = np.clip(np.abs(values), SMALLEST, LARGEST)
    rank = np.minimum(np.ceil(np.log(size / SMALLEST) / _STEP), _HALF).astype(np.int64)
    return _HALF + np.where(values < 0, -rank, rank)


def top_of(bins: int) -> float:
    """The upper edge of a bin: no score in it is above that, up to the last digits."""
    rank = bins - _HALF
    if rank < 0:
        return -SMALLEST * float(np.exp((-rank - 1) * _STEP)) * (1 - 1e-12)
    return SMALLEST * float(np.exp(rank * _STEP)) * (1 + 1e-12)


@dataclass(slots=True)
class ScoreHistogram:
    """Weights of scores by bin; 8 bytes a bin (`BINS`), however many scores are added."""

    weights: Floats
    total: float = 0.0
    low: float = np.inf
    high: float = -np.inf

    @classmethod
    def empty(cls) -> ScoreHistogram:
        """Nothing counted yet."""
        return cls(np.zeros(BINS))

    def add(self, scores: npt.NDArray[np.floating], weight: float = 1.0) -> None:
        """Count finite scores of any shape, each with `weight`."""
        if not scores.size:
            return
        self.add_bins(bin_of(scores.ravel()), weight)
        self.low, self.high = min(self.low, float(scores.min())), max(self.high, float(scores.max()))

    def add_bins(self, bins: npt.NDArray[np.int64], weight: float = 1.0) -> None:
        """Count scores whose bins are known already; their extremes stay unknown."""
        low = int(bins.min())
        counts = np.bincount(bins - low)
        self.weights[low : low + len(counts)] += weight * counts
        self.total += weight * len(bins)

    def quantile(self, share: float) -> float:
        """A score that at least `share` of the weight does not exceed, and the least such one but for
        `RELATIVE_ERROR` of itself. Asks for at least one score.
        """
        assert self.total > 0
        reached = np.cumsum(self.weights)
        wanted = share * self.total * (1 - 1e-12)  # lest 0.07 × 100 be asked for as 7.000000000000001
        return min(max(top_of(min(int(np.searchsorted(reached, wanted)), BINS - 1)), self.low), self.high)

    def above(self, score: float) -> float:
        """The weight of scores in bins above that of `score`; a quantile that was given is in its own bin."""
        inside = score - 1e-11 * abs(score)  # the upper edge of a bin, rounded, may lie in the next one
        return float(self.weights[int(bin_of(np.array([inside]))[0]) + 1 :].sum())

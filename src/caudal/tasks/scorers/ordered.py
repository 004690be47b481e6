"""Probabilities of one class against the rest, kept so that they can be put in order.

They are exact up to a number of samples. Beyond that they are counted in steps of 1/65536, so that memory
stays the same, and figures that need their order are exact to that. Legend: N samples (or steps, or nodes).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from caudal.tasks.metrics.figures import Floats
from caudal.tasks.metrics.ranking import Ranking, Tally

EXACT = 1 << 22
"""Probabilities that are kept as they are, of all classes together."""
_STEPS = 1 << 16
_EMPTY, _NOWHERE = np.zeros(0, np.float32), np.zeros(0, np.bool_)


class Ordered:
    """Up to `exact` probabilities as they are."""

    def __init__(self, exact: int = EXACT) -> None:
        self._exact = exact
        self._kept: list[tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]] = []
        self._samples = 0
        self._counts: Floats | None = None  # (2, steps): negatives, positives

    def add(self, scores_N: npt.NDArray[np.floating], positive_N: npt.NDArray[np.bool_]) -> None:
        """Take probabilities from 0 to 1."""
        self._kept.append((scores_N.astype(np.float32), positive_N.copy()))
        self._samples += len(scores_N)
        if self._counts is not None or self._samples > self._exact:
            self._count()

    def _count(self) -> None:
        counts = np.zeros((2, _STEPS + 1)) if self._counts is None else self._counts
        for scores_N, positive_N in self._kept:
            step_N = np.rint(scores_N.astype(np.float64) * _STEPS).astype(np.int64)
            for row, which in enumerate((~positive_N, positive_N)):
                counts[row] += np.bincount(step_N[which], minlength=_STEPS + 1)
        self._counts, self._kept = counts, []

    def tally(self) -> Tally:
        """How many positive and negative samples have each score."""
        if self._counts is None:
            scores, positive = zip(*self._kept, strict=True) if self._kept else ((), ())
            return Ranking(np.concatenate([_EMPTY, *scores]), np.concatenate([_NOWHERE, *positive])).tally()
        falling = self._counts[:, ::-1]
        there = falling.sum(0) > 0
        return Tally((np.arange(_STEPS, -1, -1) / _STEPS)[there], falling[1, there], falling[0, there])

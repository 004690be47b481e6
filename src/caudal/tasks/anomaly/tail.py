"""The generalized Pareto distribution, fitted to what exceeds a high score: the shape of a tail.

Far enough out, the tail of nearly every distribution is of this kind (Pickands 1975; Balkema and de Haan
1974). What the tail is used for is not known here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from caudal.tasks.anomaly.histogram import Floats


@dataclass(frozen=True, slots=True)
class Tail:
    """P(score > start + e) = share · (1 + shape · e / scale)^(-1 / shape), for e ≥ 0."""

    start: float
    share: float
    scale: float
    shape: float

    def score_at(self, rate: float) -> float:
        """The score that is exceeded with chance `rate`, which is at most `share`."""
        grown = np.log(self.share / rate)
        if abs(self.shape) < 1e-9:
            return float(self.start + self.scale * grown)
        return float(self.start + self.scale * np.expm1(self.shape * grown) / self.shape)

    def rate_above(self, score: float) -> float:
        """The chance of a score above `score`, which is at least `start`."""
        excess = max(0.0, score - self.start) / self.scale
        if abs(self.shape) < 1e-9:
            return float(self.share * np.exp(-excess))
        inside = 1 + self.shape * excess
        return float(self.share * inside ** (-1 / self.shape)) if inside > 0 else 0.0


def fit_tail(excess: Floats, start: float, share: float) -> Tail:
    """The tail of positive `excess` above `start`, which a `share` of all scores has.

    The estimate of Zhang and Stephens (Technometrics 51, 2009), a mean over the likelihood that has neither
    iteration nor cases without an answer. The shape is drawn towards 0, an exponential tail, as if by 10 more
    excesses (as Vehtari, Gelman and Gabry do towards 1/2; JMLR 2024): few excesses say little about it.
    """
    ordered = np.sort(excess)
    count = len(ordered)
    points = 30 + int(np.sqrt(count))
    quarter = ordered[max(0, int(count / 4 + 0.5) - 1)]
    # Each guess b stands for -shape / scale: 1 - b·excess stays above 0 for all of them.
    guesses = 1 / ordered[-1] + (1 - np.sqrt(points / (np.arange(1, points + 1) - 0.5))) / (3 * quarter)
    shapes = np.array([np.log1p(-b * ordered).mean() for b in guesses])
    likelihood = count * (np.log(-guesses / shapes) - shapes - 1)
    weights = np.exp(likelihood - likelihood.max())
    b = float((guesses * weights).sum() / weights.sum())
    shape = float(np.log1p(-b * ordered).mean())
    return Tail(start, share, -shape / b, count * shape / (count + 10))

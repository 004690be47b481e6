"""Whether probabilities mean what they say: Brier score, calibration error, and the temperature that mends.

Legend: N samples, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from caudal.tasks.metrics.figures import Floats, check_finite, ratio

BINS = 10
"""Bins of a reliability plot."""
_STEPS = 80  # of the bisection: the bracket of 10⁴ to below float64's grain
_RANGE = (1e-2, 1e2)
_LEAST = 1e-30  # a float32 probability of 0 has no logarithm


def brier(probabilities_NK: npt.NDArray[np.floating], truth_N: npt.NDArray[np.integer]) -> float:
    """Mean square of what the probabilities lack; NaN without samples.

    Two classes: the square for the second class, from 0 to 1, as Brier's score is used for two. More: the
    sum over the classes, from 0 to 2.
    """
    return float(squares(probabilities_NK, truth_N).mean()) if len(truth_N) else float("nan")


def squares(probabilities_NK: npt.NDArray[np.floating], truth_N: npt.NDArray[np.integer]) -> Floats:
    """What each sample adds to Brier's score (N,): see `brier`."""
    check_finite(probabilities_NK)
    wrong_NK = probabilities_NK.astype(np.float64)
    wrong_NK[np.arange(len(truth_N)), truth_N] -= 1
    squares_N: Floats = np.square(wrong_NK).sum(1) / (2 if probabilities_NK.shape[1] == 2 else 1)
    return squares_N


@dataclass(frozen=True, slots=True)
class Reliability:
    """Bins of equal width: how many samples each holds, what they were said to be, what they were.

    `said` and `seen` are NaN in an empty bin; a value on an edge is in the bin below it.
    """

    edges: Floats
    count: Floats
    said: Floats
    seen: Floats

    @property
    def error(self) -> float:
        """Expected calibration error: the mean of |said - seen| over the samples; NaN without any."""
        full = self.count > 0
        gaps = self.count[full] * np.abs(self.said[full] - self.seen[full])
        return float(ratio(gaps.sum(), self.count.sum()))


def reliability(
    confidence_N: npt.NDArray[np.floating], happened_N: npt.NDArray[np.bool_], bins: int = BINS
) -> Reliability:
    """Compare probabilities with how often what they stand for happened."""
    check_finite(confidence_N)
    edges = np.linspace(0, 1, bins + 1)
    number = bins_of(confidence_N, bins)
    count = np.bincount(number, minlength=bins).astype(np.float64)
    said, seen = (
        np.bincount(number, weights, bins).astype(np.float64) for weights in (confidence_N, happened_N)
    )
    return Reliability(edges, count, ratio(said, count), ratio(seen, count))


def bins_of(confidence_N: npt.NDArray[np.floating], bins: int) -> npt.NDArray[np.int64]:
    """The bin of each probability, of so many of equal width."""
    return np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], confidence_N)


def confidence(
    probabilities_NK: npt.NDArray[np.floating], truth_N: npt.NDArray[np.integer]
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """What `reliability` compares: the second class's probability of two, the largest one of more."""
    chosen_N = np.ones_like(truth_N) if probabilities_NK.shape[1] == 2 else probabilities_NK.argmax(1)
    confidence_N: Floats = probabilities_NK[np.arange(len(truth_N)), chosen_N].astype(np.float64)
    return confidence_N, np.equal(chosen_N, truth_N)


def fit_temperature(scores: npt.NDArray[np.floating], truth_N: npt.NDArray[np.integer]) -> float | None:
    """The T for which `softmax(scores / T)` has the least negative log-likelihood (Guo et al., ICML 2017).

    `scores` are logits (N, K), or (N,) of one output through a sigmoid. `None` where no finite T is best:
    with scores that separate the classes without fault, or say nothing of them.

    Raises:
        BadValues: a score is NaN or infinite.
    """
    check_finite(scores)
    if not len(truth_N):
        return None
    logits_NK = scores.astype(np.float64)
    if logits_NK.ndim == 1:
        logits_NK = np.stack([np.zeros_like(logits_NK), logits_NK], 1)
    logits_NK = logits_NK - logits_NK[np.arange(len(truth_N)), truth_N][:, None]
    low, high = _RANGE
    # The loss is convex in 1/T: its slope has one zero, or none.
    if not (_slope(logits_NK, low) < 0 < _slope(logits_NK, high)):
        return None
    for _step in range(_STEPS):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if _slope(logits_NK, middle) < 0 else (low, middle)
    return float((low * high) ** -0.5)


def logits_of(probabilities_NK: npt.NDArray[np.floating]) -> Floats:
    """Logits that have these probabilities; those of the model but for a constant in each row."""
    logits_NK: Floats = np.log(np.maximum(probabilities_NK.astype(np.float64), _LEAST))
    return logits_NK


def _slope(logits_NK: Floats, sharpness: float) -> float:
    """How the loss changes with 1/T at `sharpness`, for logits counted from the true class's."""
    scaled_NK = logits_NK * sharpness
    scaled_NK -= scaled_NK.max(1, keepdims=True)
    weights_NK = np.exp(scaled_NK)
    return float(((weights_NK * logits_NK).sum(1) / weights_NK.sum(1)).mean())

"""The score above which something is called an anomaly, for a stated rate of false alarms.

Learned from the scores of normal data alone, in a stream and in memory that does not grow with it. A score
*above* the threshold is an alarm, an equal one is not: where all scores are equal there is none.

Nothing is learned from anomalies here, so data without any are no special case. The interval takes scores to
be independent; those of neighbouring pixels are not, and then it is too narrow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from caudal.core.errors import BadValues
from caudal.core.messages import _
from caudal.core.seeds import generator
from caudal.tasks.anomaly.histogram import RELATIVE_ERROR, Floats, ScoreHistogram
from caudal.tasks.anomaly.tail import fit_tail

Method = Literal["extreme", "quantile"]

KEPT = 4096
LEAST_EXCEEDANCES, MOST_EXCEEDANCES, LEAST_DISTINCT = 50, 1000, 20
"""More exceedances reach into the body of the distribution, where the tail's law does not hold yet."""
ENOUGH_ALARMS = 100
"""So many scores above a quantile fix it without any fit."""
_RESAMPLES, _CONFIDENCE = 200, 0.95


@dataclass(frozen=True, slots=True)
class Threshold:
    """`score`, and how far it can be trusted. `rate` is the false alarms asked for, as a share.

    `interval` holds the right score with 95 % confidence (`None`: above all that was seen, so no bound).
    `expected` is the rate that the scores themselves or the fit give, between `expected_low` and
    `expected_high` with 95 % confidence. `relative_error` is that of `score` by the bins of the sketch.
    `remark` says in words why the method is not the one asked for, or is "".
    """

    score: float
    rate: float
    method: Method
    scores_seen: int
    interval: tuple[float, float | None]
    expected: float
    expected_low: float
    expected_high: float
    relative_error: float = 0.0
    remark: str = ""

    def values(self) -> dict[str, Any]:
        """As plain values, for a model's card."""
        return {name: getattr(self, name) for name in self.__slots__}


class ThresholdSketch:
    """Scores in a stream: counts in bins, and the `kept` largest as they are. Nothing else is held."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._counts = ScoreHistogram.empty()
        self._top: Floats = np.zeros(0)

    @property
    def count(self) -> int:
        """How many scores were added."""
        return int(self._counts.total)

    @property
    def nbytes(self) -> int:
        """What is held between calls."""
        return self._counts.weights.nbytes + self._top.nbytes

    def add(self, scores: npt.NDArray[np.floating]) -> None:
        """Take scores of normal data, any shape.

        Raises:
            BadValues: a score is no finite number.
        """
        if not np.isfinite(scores).all():
            raise BadValues(
                _("A score of normal data is not a finite number, so there is no threshold."),
                _("Check the model on one image: its training may have diverged."),
            )
        flat = scores.ravel()
        self._counts.add(flat)
        if len(self._top) == self._kept:
            flat = flat[flat > self._top[0]]
        if len(flat):
            joined = np.concatenate([self._top, flat.astype(np.float64)])
            self._top = np.sort(joined if len(joined) <= self._kept else _largest(joined, self._kept))

    def threshold(self, rate: float, method: Method = "extreme", seed: int = 0) -> Threshold:
        """The score that normal data exceed at `rate`, a share above 0 and below 1.

        With "extreme" a generalized Pareto tail is fitted to the highest scores where the scores alone do not
        fix so rare a quantile; where they do, and where there is too little for a fit, it is the quantile.

        Raises:
            BadValues: no score was added.
        """
        assert 0 < rate < 1
        if not self.count:
            raise BadValues(
                _("There is no normal image left to set a threshold on."),
                _("Hold out a part of the good images, or give the threshold yourself."),
            )
        if method == "quantile" or self.count * rate >= ENOUGH_ALARMS:
            return self._quantile(rate, "")
        most = min(len(self._top) - 1, MOST_EXCEEDANCES)
        taken = min(most, max(self.count // 10, min(self.count // 2, LEAST_EXCEEDANCES)))
        start = float(self._top[-taken - 1]) if taken > 0 else float(self._top[-1])
        excess = self._top[self._top > start] - start
        distinct = len(np.unique(excess))
        if len(excess) < LEAST_EXCEEDANCES or distinct < LEAST_DISTINCT:
            remark = _(
                "{count} scores of normal data have {excess} exceedances ({distinct} of them distinct), too "
                "few for an extreme-value fit; the threshold is their quantile."
            ).format(count=self.count, excess=len(excess), distinct=distinct)
            return self._quantile(rate, remark)
        if rate * self.count >= len(excess):  # not in the tail at all
            return self._quantile(rate, "")
        return self._extreme(excess, start, rate, seed)

    def _extreme(self, excess: Floats, start: float, rate: float, seed: int) -> Threshold:
        """The fit, and how much it moves when the scores are drawn again (bootstrap)."""
        share = len(excess) / self.count
        tail = fit_tail(excess, start, share)
        score = tail.score_at(min(rate, share))
        draws = generator(seed, "threshold")
        scores, rates = [], []
        for _draw in range(_RESAMPLES):
            number = max(LEAST_DISTINCT, int(draws.binomial(self.count, share)))
            again = fit_tail(draws.choice(excess, number), start, number / self.count)
            scores.append(again.score_at(min(rate, again.share)))
            rates.append(again.rate_above(score))
        sides = [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2]
        low, high = np.quantile(scores, sides)
        rate_low, rate_high = np.quantile(rates, sides)
        return Threshold(
            score,
            rate,
            "extreme",
            self.count,
            (float(min(low, score)), float(max(high, score))),
            tail.rate_above(score),
            float(rate_low),
            float(rate_high),
        )

    def _quantile(self, rate: float, remark: str) -> Threshold:
        """The smallest score that no more than `rate` of the scores are above, and ranks around it."""
        count = self.count
        above = int(np.floor(rate * count * (1 + 1e-12)))
        score, error = self._ranked(above)
        spread = 1.96 * np.sqrt(count * rate * (1 - rate)) + 1
        low, _error = self._ranked(int(min(count - 1, np.ceil(rate * count + spread))))
        fewer = int(np.floor(rate * count - spread))
        high = self._ranked(fewer)[0] if fewer >= 0 else None
        found = self.above(score)
        if not remark and count * rate < 1:
            remark = _(
                "{count} scores of normal data cannot show a false-alarm rate of {rate}; the threshold is "
                "the highest of them."
            ).format(count=count, rate=f"{rate:g}")
        wilson = _wilson(found, count)
        return Threshold(
            score, rate, "quantile", count, (min(low, score), high), found / count, *wilson, error, remark
        )

    def _ranked(self, above: int) -> tuple[float, float]:
        """The score that `above` scores come before, and its relative error; exact among the largest."""
        if above < len(self._top):
            return float(self._top[-1 - above]), 0.0
        return self._counts.quantile(1 - above / self.count), RELATIVE_ERROR

    def above(self, score: float) -> int:
        """How many scores are higher: exact for those kept and for a threshold given here, else by bins."""
        if score >= self._top[0]:
            return int((self._top > score).sum())
        return int(self._counts.above(score))


def _largest(values: Floats, count: int) -> Floats:
    return np.partition(values, len(values) - count)[-count:]


def _wilson(found: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927): sensible at 0 found, too."""
    z, p = 1.96, found / count
    middle = (p + z * z / (2 * count)) / (1 + z * z / count)
    reach = z / (1 + z * z / count) * np.sqrt(p * (1 - p) / count + z * z / (4 * count * count))
    return float(max(0.0, middle - reach)), float(min(1.0, middle + reach))

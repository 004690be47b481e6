"""Percentile bootstrap intervals (Efron, 1979): how much a figure would vary with other samples.

Samples are drawn anew within each class, so that no resample lacks one. Samples of one group (a patient, a
lesion) are drawn together, groups within those that hold the same rare class. Legend: N samples, R resamples
at once, U units that are drawn (samples or groups), F figures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from caudal.core.seeds import generator
from caudal.tasks.metrics.figures import Floats

Statistic = Callable[[Floats], Floats]
"""Figures (R,), or several (R, F), of how often each resample has each sample (R, N); NaN: undefined."""
Interval = tuple[float, float]

_CELLS = 1 << 18  # resamples × samples at once: some MB, and all in the cache
_DRAWS = 50_000_000


class Bootstrap:
    """Resamples of samples whose classes are `truth_N`, and which belong together where `group_N` is equal.

    `count` resamples, fewer where there are very many samples: with those, an interval is narrow and 200
    resamples say so too. The same seed gives the same interval.
    """

    def __init__(
        self,
        truth_N: npt.NDArray[np.integer],
        group_N: npt.NDArray[np.integer] | None = None,
        count: int = 1000,
        seed: int = 0,
    ) -> None:
        self._samples = len(truth_N)
        self._count = min(count, max(200, _DRAWS // max(1, self._samples)))
        self._seed = seed
        self._unit_N = None
        stratum = truth_N
        if group_N is not None:
            _names, self._unit_N = np.unique(group_N, return_inverse=True)
            stratum = _rarest_class(truth_N, self._unit_N)
        self._strata = [np.flatnonzero(stratum == kind) for kind in np.unique(stratum)]
        self._units = len(stratum)
        self._fewest = _fewest_units(truth_N, self._unit_N)

    def interval(self, statistic: Statistic, level: float = 0.95) -> Interval | None:
        """From where to where the figure lies in `level` of the resamples.

        `None` where it is defined in none, or where a class is in one sample or group alone: drawn again
        that is always the same, and the interval would claim what nobody knows.
        """
        found = self.intervals(lambda weights: statistic(weights)[:, None], level)
        return found[0] if found else None

    def intervals(self, statistics: Statistic, level: float = 0.95) -> list[Interval | None]:
        """As `interval`, of several figures (R, F) over the same resamples; empty where all are undefined."""
        if self._fewest < 2:
            return []
        values_RF = np.concatenate([statistics(weights) for weights in self._weights()])
        ends = ((1 - level) / 2, (1 + level) / 2)
        found: list[Interval | None] = []
        for values in values_RF.T:
            known = values[~np.isnan(values)]
            low, high = np.quantile(known, ends) if len(known) else (np.nan, np.nan)
            found.append((float(low), float(high)) if len(known) else None)
        return found

    def _weights(self) -> Iterator[Floats]:
        rng = generator(self._seed, "bootstrap")
        rows = max(1, _CELLS // max(1, self._samples))
        for start in range(0, self._count, rows):
            size = min(rows, self._count - start)
            times_RU = np.empty((size, self._units))
            for units in self._strata:
                drawn = rng.integers(0, len(units), (size, len(units)), np.int32)
                cells = (drawn + np.arange(size)[:, None] * len(units)).ravel()
                times_RU[:, units] = np.bincount(cells, minlength=size * len(units)).reshape(size, -1)
            yield times_RU if self._unit_N is None else times_RU[:, self._unit_N]


def _holds(truth_N: npt.NDArray[np.integer], unit_N: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
    """Which group has a sample of which class: `(groups, classes)`."""
    holds = np.zeros((int(unit_N.max(initial=-1)) + 1, int(truth_N.max(initial=-1)) + 1), np.bool_)
    holds[unit_N, truth_N] = True
    return holds


def _rarest_class(
    truth_N: npt.NDArray[np.integer], unit_N: npt.NDArray[np.integer]
) -> npt.NDArray[np.integer]:
    """Of each group, the class it holds that the fewest groups hold: what must not be lost in drawing."""
    holds = _holds(truth_N, unit_N)
    rarest: npt.NDArray[np.integer] = np.where(holds, holds.sum(0), len(holds) + 1).argmin(1)
    return rarest


def _fewest_units(truth_N: npt.NDArray[np.integer], unit_N: npt.NDArray[np.integer] | None) -> int:
    """In how many samples or groups the rarest class is that there is."""
    if not len(truth_N):
        return 0
    counts = np.bincount(truth_N) if unit_N is None else _holds(truth_N, unit_N).sum(0)
    return int(counts[counts > 0].min())

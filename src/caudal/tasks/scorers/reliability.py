"""Whether probabilities mean what they say, gathered piece by piece: sums over bins add up."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from caudal.tasks.metrics import calibration
from caudal.tasks.metrics.figures import Floats, figure, ratio
from caudal.tasks.scorers.rows import Rows

_BINS = 10


class RunningReliability:
    """Samples of each bin, what they were said to be and what they were, as sums."""

    def __init__(self) -> None:
        self._count, self._said, self._seen = np.zeros((3, _BINS))

    def add(self, confidence_N: Floats, happened_N: npt.NDArray[np.bool_]) -> None:
        """Take probabilities, and whether what they stand for happened."""
        found = calibration.reliability(confidence_N, happened_N, _BINS)
        self._count = self._count + found.count
        self._said = self._said + np.nan_to_num(found.said) * found.count
        self._seen = self._seen + np.nan_to_num(found.seen) * found.count

    def result(self) -> calibration.Reliability:
        """The bins of all that was taken."""
        edges = np.linspace(0, 1, _BINS + 1)
        return calibration.Reliability(
            edges, self._count, ratio(self._said, self._count), ratio(self._seen, self._count)
        )

    def rows(self) -> Rows:
        """The bins as a table."""
        found = self.result()
        return [
            {
                "from": float(found.edges[k]),
                "to": float(found.edges[k + 1]),
                "samples": float(found.count[k]),
                "said": figure(found.said[k]),
                "seen": figure(found.seen[k]),
            }
            for k in range(_BINS)
        ]

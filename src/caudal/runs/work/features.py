"""Features of rows as a model takes them: means and deviations, streamed, and how they are applied.

What is missing is left out and counted. Which columns are kinds is known already (`encoding`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from caudal.core.config import Frozen
from caudal.runs.work.encoding import Encoding, Kinds


class Scaling(Frozen):
    """Of each feature, encoded, its mean and deviation, and the share of values that are missing."""

    means: tuple[float, ...]
    deviations: tuple[float, ...]
    missing: float = 0.0


class Moments:
    """Gathers rows (R, F); by the update of Chan, Golub and LeVeque (The American Statistician, 1983)."""

    def __init__(self, columns: int, kinds: Kinds = ()) -> None:
        self._encode = Encoding(columns, kinds)
        features = self._encode.width
        self._count = np.zeros(features)
        self._mean = np.zeros(features)
        self._squares = np.zeros(features)
        self._missing = self._values = 0

    def add(self, rows_RF: npt.NDArray[np.float64]) -> None:
        """Take rows; values that are not finite are missing."""
        self._missing += int((~np.isfinite(rows_RF)).sum())
        self._values += rows_RF.size
        encoded = self._encode(rows_RF)
        there = np.isfinite(encoded)
        count = there.sum(0)
        some = np.maximum(count, 1)
        mean = np.where(there, encoded, 0).sum(0) / some
        squares = (np.where(there, encoded - mean, 0) ** 2).sum(0)
        total = np.maximum(self._count + count, 1)
        shift = mean - self._mean
        self._squares += squares + shift**2 * self._count * count / total
        self._mean += shift * count / total
        self._count += count

    def result(self) -> Scaling:
        """A feature that never changes has the deviation 1: it becomes 0."""
        deviation = np.sqrt(self._squares / np.maximum(self._count, 1))
        deviation = np.where(deviation > 1e-9 * np.maximum(1, np.abs(self._mean)), deviation, 1.0)
        return Scaling(
            means=tuple(self._mean.tolist()),
            deviations=tuple(deviation.tolist()),
            missing=self._missing / self._values if self._values else 0.0,
        )


class Features:
    """Rows (…, F) as they lie in files → (…, G) float32 for a model; unknown numbers stay NaN.

    Numbers get mean 0 and deviation 1, values of kinds 0 and 1. A value that no sample to train on had is 0:
    the weights behind it were never learned. Without a `scaling` numbers are taken as they are.
    """

    def __init__(
        self, scaling: Scaling | None, columns: int, kinds: Kinds = (), counts: bool = False
    ) -> None:
        """With `counts` the share that is `missing` is gathered."""
        self.encode = Encoding(columns, kinds)
        self._counts, self._missing, self._values = counts, 0, 0
        if scaling is None:
            self._shift = self._scale = None
        else:
            means, deviations = np.array(scaling.means), np.array(scaling.deviations)
            number = self.encode.is_number
            self._shift = np.where(number, means, 0.0)
            self._scale = np.where(number, 1 / deviations, means > 0)

    @property
    def missing(self) -> float:
        """The share of values that were not finite."""
        return self._missing / self._values if self._values else 0.0

    def __call__(self, rows: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """A new array."""
        if self._counts:
            self._values += rows.size
            self._missing += rows.size - int(np.count_nonzero(np.isfinite(rows)))
        encoded = self.encode(rows.reshape(*rows.shape[:-1], self.encode.columns))
        if self._shift is None:
            return np.array(encoded, np.float32)
        assert self._scale is not None
        # What comes in few bits is no better for being scaled in many.
        exact = np.float32 if encoded.dtype in (np.float16, np.float32) else np.float64
        with np.errstate(over="ignore", invalid="ignore"):  # what is infinite is missing
            scaled = np.subtract(encoded, self._shift.astype(exact), dtype=exact)
            scaled *= self._scale.astype(exact)
            return np.asarray(scaled, np.float32)

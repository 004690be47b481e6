"""Means and deviations of the features of rows, streamed; what is missing is left out and counted."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from caudal.core.config import Frozen


class Scaling(Frozen):
    """Of each feature its mean and deviation, and the share of values that are missing."""

    means: tuple[float, ...]
    deviations: tuple[float, ...]
    missing: float = 0.0


class Moments:
    """Gathers rows (R, F); by the update of Chan, Golub and LeVeque (The American Statistician, 1983)."""

    def __init__(self, features: int) -> None:
        self._count = np.zeros(features)
        self._mean = np.zeros(features)
        self._squares = np.zeros(features)
        self._rows = 0

    def add(self, rows_RF: npt.NDArray[np.float64]) -> None:
        """Take rows; values that are not finite are missing."""
        there = np.isfinite(rows_RF)
        count = there.sum(0)
        some = np.maximum(count, 1)
        mean = np.where(there, rows_RF, 0).sum(0) / some
        squares = (np.where(there, rows_RF - mean, 0) ** 2).sum(0)
        total = np.maximum(self._count + count, 1)
        shift = mean - self._mean
        self._squares += squares + shift**2 * self._count * count / total
        self._mean += shift * count / total
        self._count += count
        self._rows += len(rows_RF)

    def result(self) -> Scaling:
        """A feature that never changes has the deviation 1: it becomes 0."""
        deviation = np.sqrt(self._squares / np.maximum(self._count, 1))
        deviation = np.where(deviation > 1e-9 * np.maximum(1, np.abs(self._mean)), deviation, 1.0)
        every = self._rows * len(self._count)
        return Scaling(
            means=tuple(self._mean.tolist()),
            deviations=tuple(deviation.tolist()),
            missing=1 - float(self._count.sum()) / every if every else 0.0,
        )

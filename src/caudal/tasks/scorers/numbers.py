"""Scores of predicted numbers, gathered as sums: memory does not grow with the samples.

Shared by tasks that learn from features. Legend: N samples (or steps, or nodes), K numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from caudal.core.messages import _
from caudal.tasks.base import Metrics
from caudal.tasks.metrics.figures import Floats, check_finite, figure, ratio
from caudal.tasks.scorers.rows import Rows, figure_rows, mean_there


class NumberScorer:
    """Errors of each number, over the samples where it is known."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names
        zeros = np.zeros(len(names))
        self._count, self._absolute, self._squared = zeros, zeros.copy(), zeros.copy()
        self._mean, self._spread = zeros.copy(), zeros.copy()  # of the truth; spread: squares about the mean

    def add(self, predicted: npt.NDArray[np.floating], truth: npt.NDArray[Any]) -> None:
        """Take predictions and truths (…, K), in their own units; an unknown truth does not count."""
        found_NK = predicted.reshape(-1, len(self._names)).astype(np.float64)
        truth_NK = truth.reshape(found_NK.shape).astype(np.float64)
        known_NK = np.isfinite(truth_NK)
        check_finite(found_NK[known_NK])
        truth_NK = np.where(known_NK, truth_NK, 0)
        error_NK = np.where(known_NK, found_NK - truth_NK, 0)
        self._absolute = self._absolute + np.abs(error_NK).sum(0)
        self._squared = self._squared + np.square(error_NK).sum(0)
        self._add_truth(truth_NK, known_NK)

    def _add_truth(self, truth_NK: Floats, known_NK: npt.NDArray[np.bool_]) -> None:
        """Merge mean and spread (Chan, Golub and LeVeque, 1983): a sum of squares alone would cancel."""
        count = known_NK.sum(0).astype(np.float64)
        mean = np.nan_to_num(ratio(truth_NK.sum(0), count))
        spread = np.where(known_NK, np.square(truth_NK - mean), 0).sum(0)
        both = self._count + count
        apart = mean - self._mean
        share = np.nan_to_num(ratio(count, both))
        self._spread = self._spread + spread + np.square(apart) * self._count * share
        self._mean = self._mean + apart * share
        self._count = both

    def _by_number(self) -> dict[str, Floats]:
        return {
            "mae": ratio(self._absolute, self._count),
            "rmse": np.sqrt(ratio(self._squared, self._count)),
            "r2": 1 - ratio(self._squared, self._spread),
        }

    def result(self) -> Metrics:
        """`r2`, `mae` and `rmse` (means over the numbers that define them), `samples` (of the number with
        most), and of each of several numbers `…_<name>`.
        """  # fmt: skip
        by_number = self._by_number()
        found: Metrics = {kind: figure(mean_there(values)) for kind, values in by_number.items()}
        found["samples"] = float(self._count.max(initial=0))
        if len(self._names) > 1:
            for k, name in enumerate(self._names):
                found |= {f"{kind}_{name}": figure(values[k]) for kind, values in by_number.items()}
        return found

    def best_thresholds(self) -> None:
        """Numbers have none."""
        return None

    def warnings(self) -> list[str]:
        """Names the numbers that are the same in all samples, or in none."""
        same = [name for name, spread in zip(self._names, self._spread, strict=True) if not spread]
        if not same:
            return []
        return [
            _("{names} does not vary in the samples that were scored, so it has no R².").format(
                names=", ".join(same)
            )
        ]

    def tables(self) -> dict[str, Rows]:
        """`numbers`: one row each."""
        rows = figure_rows("number", self._names, {"samples": self._count}, self._by_number())
        return {"numbers": rows}

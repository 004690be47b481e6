"""Figures of a classification: ranking with intervals, decisions, calibration, and each group apart.

Holds one row of float32 for each sample, its class, and a number for each column of groups. Of two classes
the second is the positive one; of more, ranking figures are means over each class against all others.
Legend: N samples, B batch, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from caudal.core.messages import _
from caudal.tasks.base import Metrics
from caudal.tasks.classification.groups import GroupColumns
from caudal.tasks.classification.intervals import Figures, mean_of_defined
from caudal.tasks.metrics import calibration, ranking, thresholded
from caudal.tasks.metrics.bootstrap import Bootstrap
from caudal.tasks.metrics.figures import Floats, check_finite, figure
from caudal.tasks.metrics.ranking import Ranking, Tally

_FIGURES: dict[str, Callable[[Tally], Floats]] = {
    "auroc": ranking.auroc,
    "average_precision": ranking.average_precision,
    "pauc_above_tpr80": lambda tally: ranking.pauc_above_tpr(tally, 0.80),
    "sensitivity_at_specificity_90": lambda tally: ranking.sensitivity_at_specificity(tally, 0.90),
    "sensitivity_at_specificity_95": lambda tally: ranking.sensitivity_at_specificity(tally, 0.95),
    "specificity_at_sensitivity_90": lambda tally: ranking.specificity_at_sensitivity(tally, 0.90),
    "specificity_at_sensitivity_95": lambda tally: ranking.specificity_at_sensitivity(tally, 0.95),
}
_FEW = 10
_MOST_NAMED = 8


class ClassificationScorer:
    """Takes probabilities and classes, batch by batch.

    `threshold` of two classes: the second from it on; without, the likelier class. Samples that share a
    value in the column `resample_by` are drawn together for intervals.
    """

    def __init__(
        self, class_names: tuple[str, ...], threshold: float | None = None, resample_by: str | None = None
    ) -> None:
        assert threshold is None or len(class_names) == 2
        self._names, self._threshold, self._resample_by = class_names, threshold, resample_by
        self._probabilities = [np.zeros((0, len(class_names)), np.float32)]
        self._truth = [np.zeros(0, np.int64)]
        self._groups = GroupColumns()

    def add(
        self,
        probabilities_BK: npt.NDArray[np.float32],
        truth_B: npt.NDArray[np.int64],
        groups: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """Take a batch: probabilities, class numbers, and of each group column the samples' values.

        Raises:
            BadValues: a probability is NaN or infinite.
        """
        assert probabilities_BK.shape == (len(truth_B), len(self._names))
        check_finite(probabilities_BK)
        self._probabilities.append(probabilities_BK.astype(np.float32))  # a copy: batches lie in an arena
        self._truth.append(truth_B.astype(np.int64))
        self._groups.add(len(truth_B), groups or {})

    def result(self) -> Metrics:
        """Flat figures, `None` where undefined.

        Ranking: `auroc`, `average_precision`, `pauc_above_tpr80` (at most 0.2), and
        `sensitivity_at_specificity_90`, `…_95` and the reverse. `auroc_low`, `auroc_high` and so for these
        and those below, but `f1` and `precision`: 95 % bootstrap intervals. Decisions: `accuracy`,
        `balanced_accuracy`, `f1` (of the positive class; of more than two their mean), `sensitivity`,
        `specificity`, `precision` (two classes). Calibration:
        `brier`, `ece`. For later use: `best_threshold` (two classes; of the largest F1) and `temperature`,
        both to be used on other data than these. `samples`, `support_<class>`, and for each group that
        has two classes `auroc_<column>_<value>`.
        """
        probabilities_NK, truth_N = self._all()
        metrics = self._ranking(probabilities_NK, truth_N)
        metrics |= self._intervals(probabilities_NK, truth_N)
        metrics |= self._decisions(probabilities_NK, truth_N)
        metrics["brier"] = figure(calibration.brier(probabilities_NK, truth_N))
        metrics["ece"] = figure(self._reliability().error)
        metrics["temperature"] = calibration.fit_temperature(calibration.logits_of(probabilities_NK), truth_N)
        metrics["samples"] = float(len(truth_N))
        for name, support in zip(self._names, self._support(), strict=True):
            metrics[f"support_{name}"] = float(support)
        for row in self._group_rows():
            if row["auroc"] is not None:
                metrics[f"auroc_{row['column']}_{row['value']}"] = row["auroc"]
        return metrics

    def warnings(self) -> list[str]:
        """Names classes without samples, or with few, and columns of too many values to show."""
        said = []
        support = self._support()
        absent = [name for name, count in zip(self._names, support, strict=True) if not count]
        few = [name for name, count in zip(self._names, support, strict=True) if 0 < count < _FEW]
        if absent:
            said.append(
                _("Class {names} has no sample that was scored, so it has no score.").format(
                    names=", ".join(absent)
                )
            )
        if few:
            said.append(
                _(
                    "Class {names} has fewer than {count} samples that were scored: look at the interval."
                ).format(names=", ".join(few), count=_FEW)
            )
        if tiny := self._tiny_groups():
            said.append(
                _(
                    "Groups with fewer than {count} samples of a class: {names}. Their AUROC says little; "
                    "look at the interval."
                ).format(
                    count=_FEW,
                    names=", ".join(tiny[:_MOST_NAMED]) + (" …" if len(tiny) > _MOST_NAMED else ""),
                )
            )
        return said + self._groups.warnings()

    def tables(self) -> dict[str, Any]:
        """What a report draws, as plain values.

        `classes`: their names; `confusion`: samples by truth (row) and decision (column); `by_class`: rows
        with `class`, `samples`, `auroc`, `precision`, `recall`, `f1`; `reliability`: rows with `low`,
        `high`, `samples`, `said`, `seen`, of the bins that are not empty; `roc`: for each class (of two,
        the second) its points (false-positive rate, true-positive rate); `groups`: rows with `column`,
        `value`, `samples`, `positives` (of two classes), `auroc`, `low`, `high`.
        """
        probabilities_NK, truth_N = self._all()
        table = self._confusion(probabilities_NK, truth_N)
        tallies = {k: self._order(k, probabilities_NK, truth_N).tally() for k in range(len(self._names))}
        columns = [thresholded.precision(table), thresholded.recall(table), thresholded.f1(table)]
        by_class = [
            {
                "class": name,
                "samples": int(table[k].sum()),
                "auroc": figure(ranking.auroc(tallies[k])),
                "precision": figure(columns[0][k]),
                "recall": figure(columns[1][k]),
                "f1": figure(columns[2][k]),
            }
            for k, name in enumerate(self._names)
        ]
        bins = self._reliability()
        reliability = [
            {
                "low": float(bins.edges[k]),
                "high": float(bins.edges[k + 1]),
                "samples": int(bins.count[k]),
                "said": float(bins.said[k]),
                "seen": float(bins.seen[k]),
            }
            for k in np.flatnonzero(bins.count)
        ]
        return {
            "classes": list(self._names),
            "confusion": table.astype(int).tolist(),
            "by_class": by_class,
            "reliability": reliability,
            "roc": {self._names[k]: ranking.roc_points(tallies[k]) for k in self._ranked()},
            "groups": self._group_rows(intervals=True),
        }

    def _all(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        self._probabilities = [np.concatenate(self._probabilities)]
        self._truth = [np.concatenate(self._truth)]
        return self._probabilities[0], self._truth[0]

    def _support(self) -> npt.NDArray[np.int64]:
        return np.bincount(self._all()[1], minlength=len(self._names))

    def _ranked(self) -> range:
        """The classes that are ranked against the others."""
        return range(1, 2) if len(self._names) == 2 else range(len(self._names))

    @staticmethod
    def _order(k: int, probabilities_NK: npt.NDArray[np.float32], truth_N: npt.NDArray[np.int64]) -> Ranking:
        return Ranking(probabilities_NK[:, k], truth_N == k)

    def _ranking(self, probabilities_NK: npt.NDArray[np.float32], truth_N: npt.NDArray[np.int64]) -> Metrics:
        orders = [self._order(k, probabilities_NK, truth_N) for k in self._ranked()]
        tallies = [order.tally() for order in orders]
        return {
            name: figure(mean_of_defined([of(tally) for tally in tallies])) for name, of in _FIGURES.items()
        }

    def _intervals(
        self, probabilities_NK: npt.NDArray[np.float32], truth_N: npt.NDArray[np.int64]
    ) -> Metrics:
        orders = [self._order(k, probabilities_NK, truth_N) for k in self._ranked()]
        figures = Figures(_FIGURES, orders, probabilities_NK, truth_N, self._predicted(probabilities_NK))
        spreads = Bootstrap(truth_N, self._groups.numbers(self._resample_by)).intervals(figures)
        metrics: Metrics = {}
        for name, spread in zip(figures.names, spreads or [None] * len(figures.names), strict=True):
            metrics[f"{name}_low"], metrics[f"{name}_high"] = spread or (None, None)
        return metrics

    def _predicted(self, probabilities_NK: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        if self._threshold is None:
            likeliest_N: npt.NDArray[np.int64] = probabilities_NK.argmax(1)
            return likeliest_N
        return thresholded.called_positive(probabilities_NK[:, 1], self._threshold).astype(np.int64)

    def _confusion(self, probabilities_NK: npt.NDArray[np.float32], truth_N: npt.NDArray[np.int64]) -> Floats:
        return thresholded.confusion(truth_N, self._predicted(probabilities_NK), len(self._names))

    def _decisions(
        self, probabilities_NK: npt.NDArray[np.float32], truth_N: npt.NDArray[np.int64]
    ) -> Metrics:
        table = self._confusion(probabilities_NK, truth_N)
        f1_K = thresholded.f1(table)
        metrics: Metrics = {
            "accuracy": figure(thresholded.accuracy(table)),
            "balanced_accuracy": figure(thresholded.balanced_accuracy(table)),
        }
        if len(self._names) > 2:
            return metrics | {"f1": figure(mean_of_defined(list(f1_K)))}
        return metrics | {
            "f1": figure(f1_K[1]),
            "sensitivity": figure(thresholded.recall(table)[1]),
            "specificity": figure(thresholded.recall(table)[0]),
            "precision": figure(thresholded.precision(table)[1]),
            "best_threshold": thresholded.best_threshold(self._order(1, probabilities_NK, truth_N).tally()),
        }

    def _reliability(self) -> calibration.Reliability:
        return calibration.reliability(*calibration.confidence(*self._all()))

    def _group_rows(self, intervals: bool = False) -> list[dict[str, Any]]:
        probabilities_NK, truth_N = self._all()
        together_N = self._groups.numbers(self._resample_by)
        rows = []
        for column, value, mine in self._groups.shown():
            truth = truth_N[mine]
            orders = [self._order(k, probabilities_NK[mine], truth) for k in self._ranked()]
            tallies = [order.tally() for order in orders]
            low = high = None
            if intervals:
                resampled = Bootstrap(truth, None if together_N is None else together_N[mine])
                spread = resampled.interval(partial(_auroc_of, orders)) if len(np.unique(truth)) > 1 else None
                low, high = spread or (None, None)
            rows.append(
                {
                    "column": column,
                    "value": value,
                    "samples": len(truth),
                    "positives": int((truth == 1).sum()) if len(self._names) == 2 else None,
                    "auroc": figure(mean_of_defined([ranking.auroc(tally) for tally in tallies])),
                    **({"low": low, "high": high} if intervals else {}),
                }
            )
        return rows

    def _tiny_groups(self) -> list[str]:
        """Groups whose AUROC is little more than chance: few samples of a class that they hold."""
        truth_N = self._all()[1]
        tiny = []
        for column, value, mine in self._groups.shown():
            held = np.bincount(truth_N[mine], minlength=len(self._names))
            if (held > 0).sum() > 1 and held[held > 0].min() < _FEW:
                tiny.append(f"{column} {value}")
        return tiny


def _auroc_of(orders: Sequence[Ranking], weights: Floats) -> Floats:
    return mean_of_defined([ranking.auroc(order.tally(weights)) for order in orders])

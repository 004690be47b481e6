"""What gathers predictions of a `Target`, whatever its kind."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from caudal.tasks.base import Metrics
from caudal.tasks.scorers.classes import ClassScorer
from caudal.tasks.scorers.labels import LabelScorer
from caudal.tasks.scorers.numbers import NumberScorer
from caudal.tasks.scorers.rows import Rows
from caudal.tasks.targets import Target


class TargetScorer(Protocol):
    """Gathers predictions in memory that stays the same from some million samples on."""

    def add(self, probabilities: npt.NDArray[np.floating], truth: npt.NDArray[Any]) -> None:
        """Take predictions (…, K) and their truth (…) or (…, K); what is unknown does not count."""
        ...

    def result(self) -> Metrics:
        """The figures over all that was taken."""
        ...

    def warnings(self) -> list[str]:
        """What must be said beside the figures."""
        ...

    def tables(self) -> dict[str, Rows]:
        """Figures by class, label or number, confusion, curves: by the name of the table."""
        ...

    def best_thresholds(self) -> tuple[float, ...] | None:
        """The thresholds of best F1 on what was taken; `None` where there is nothing to choose."""
        ...


def scorer_of(target: Target) -> TargetScorer:
    """A new, empty scorer for a kind of target, at its thresholds."""
    if target.kind == "regression":
        return NumberScorer(target.names)
    return LabelScorer(target) if target.kind == "multilabel" else ClassScorer(target)

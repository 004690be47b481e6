"""Tables of a report, and what is said of classes that define no figure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from caudal.core.messages import _
from caudal.tasks.metrics.figures import Floats, figure
from caudal.tasks.metrics.ranking import Tally, roc_points

Row = dict[str, float | str | None]
Rows = list[Row]
"""One row a dict, the same keys in each."""


def figure_rows(
    kind: str, names: Sequence[str], counts: dict[str, Floats], figures: dict[str, Floats]
) -> Rows:
    """A row for each of `names` in the column `kind`, with its counts and figures (NaN: none)."""
    rows: Rows = []
    for k, name in enumerate(names):
        row: Row = {kind: name}
        row |= {count: float(values[k]) for count, values in counts.items()}
        row |= {key: figure(values[k]) for key, values in figures.items()}
        rows.append(row)
    return rows


def curves(tallies: dict[str, Tally]) -> Rows:
    """ROC curves as rows."""
    return [
        {"class": name, "false_positive_rate": x, "true_positive_rate": y}
        for name, tally in tallies.items()
        for x, y in roc_points(tally)
    ]


def absent(names: Sequence[str], support: Floats) -> list[str]:
    """A warning about classes without which some figures are undefined."""
    lacking = [name for name, count in zip(names, support, strict=True) if not count]
    if not lacking:
        return []
    return [
        _("Class {names} is in no sample that was scored, or in all, so it has no AUROC.").format(
            names=", ".join(lacking)
        )
    ]


def mean_there(values: Floats) -> float:
    """The mean of the figures that there are; NaN without any."""
    there = values[~np.isnan(values)]
    return float(there.mean()) if len(there) else float("nan")

"""What samples that were held out say of a model: confusion, ROC and reliability, groups, shortcuts.

Read from `tables.json`, in which tasks write the same things in two shapes; drawn here for the page.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from caudal.core.messages import _
from caudal.runs.folder import RunFolder
from caudal.runs.report import axes
from caudal.runs.report.charts import Chart, Line, draw
from caudal.runs.report.curves import Figure

TABLES = "tables.json"
CLASS_FIGURES = ("auroc", "precision", "recall", "f1")
_STYLES = ("main", "second", "third", "fourth", "fifth", "sixth")
_MOST_CLASSES = 20  # in a table that can be read

Points = dict[str, list[tuple[float, float]]]


@dataclass(frozen=True)
class Confusion:
    """`rows`: a class's name, and of each decision the count and its share of the row."""

    names: list[str]
    rows: list[tuple[str, list[tuple[str, float]]]]
    hidden: int = 0


@dataclass(frozen=True)
class HeldOut:
    """Ready to be shown; what a task does not say is empty."""

    confusion: Confusion | None = None
    charts: list[Figure] = field(default_factory=list)
    by_class: list[tuple[str, list[str], str]] = field(default_factory=list)
    groups: list[tuple[str, str, str, str, str]] = field(default_factory=list)
    shortcuts: list[tuple[str, str, str, bool]] = field(default_factory=list)

    @property
    def there(self) -> bool:
        """Whether there is anything to show."""
        return bool(self.confusion or self.charts or self.by_class or self.groups or self.shortcuts)


def held_out(folder: RunFolder) -> HeldOut:
    """What the tables of a run say; nothing where it has none, or another version wrote them."""
    path = folder.path / TABLES
    try:
        tables = json.loads(path.read_text(encoding="utf-8"))
        made = (_roc(tables), _reliability(tables))
        return HeldOut(
            _confusion(tables),
            [one for one in made if one],
            _by_class(tables),
            _groups(tables),
            _shortcuts(tables),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return HeldOut()


def _confusion(tables: dict[str, Any]) -> Confusion | None:
    rows = tables.get("confusion") or []
    if not rows:
        return None
    if isinstance(rows[0], dict):
        names = [str(row["truth"]) for row in rows]
        counts = [[float(row[name]) for name in names] for row in rows]
    else:
        names, counts = [str(name) for name in tables["classes"]], rows
    shown = names[:_MOST_CLASSES]
    said = []
    for name, row in zip(shown, counts[:_MOST_CLASSES], strict=True):
        total = sum(row) or 1
        said.append((name, [(axes.grouped(n), n / total) for n in row[:_MOST_CLASSES]]))
    return Confusion(shown, said, len(names) - len(shown))


def _points(tables: dict[str, Any]) -> Points:
    found = tables.get("roc") or {}
    if isinstance(found, dict):
        return {str(name): [(float(x), float(y)) for x, y in points] for name, points in found.items()}
    points: Points = {}
    for row in found:
        at = (float(row["false_positive_rate"]), float(row["true_positive_rate"]))
        points.setdefault(str(row["class"]), []).append(at)
    return points


def _roc(tables: dict[str, Any]) -> Figure | None:
    curves = [(name, points) for name, points in _points(tables).items() if points][: len(_STYLES)]
    if not curves:
        return None
    lines = [Line(*_columns([(0, 0), (1, 1)]), "faint")]
    lines += [Line(*_columns(points), style) for (_n, points), style in zip(curves, _STYLES, strict=False)]
    legend = [(style, name) for (name, _points), style in zip(curves, _STYLES, strict=False)]
    about = _("Share found against share of false alarms, for {names}.").format(
        names=", ".join(name for name, _p in curves)
    )
    chart = draw(_square(about, lines))
    return Figure(_("Found against false alarms (ROC)"), chart, legend, _("share of the others, called"))


def _reliability(tables: dict[str, Any]) -> Figure | None:
    rows = [row for row in tables.get("reliability") or [] if row["samples"] and row["seen"] is not None]
    if not rows:
        return None
    points = [(float(row["said"]), float(row["seen"])) for row in rows]
    lines = [Line(*_columns([(0, 0), (1, 1)]), "faint"), Line(*_columns(points), "main", dots=True)]
    about = _("How often what was said came true: {pairs}.").format(
        pairs="; ".join(
            _("said {said}, seen {seen} ({count} samples)").format(
                said=axes.percent(said), seen=axes.percent(seen), count=axes.grouped(row["samples"])
            )
            for (said, seen), row in zip(points, rows, strict=True)
        )
    )
    legend = [("main", _("seen")), ("faint", _("as said"))]
    title = _("What was said, and what was seen (reliability)")
    return Figure(title, draw(_square(about, lines)), legend, _("probability that was said"))


def _columns(points: list[tuple[float, float]]) -> tuple[Any, Any]:
    return np.array([x for x, _y in points], np.float64), np.array([y for _x, y in points], np.float64)


def _square(about: str, lines: list[Line]) -> Chart:
    ticks = axes.ticks(0.0, 1.0)
    return Chart(
        about=about, lines=lines, x_range=(0.0, 1.0), y_range=(0.0, 1.0), x_ticks=ticks, y_ticks=ticks
    )


def _by_class(tables: dict[str, Any]) -> list[tuple[str, list[str], str]]:
    """Name, figures in the order of `CLASS_FIGURES`, samples."""
    # Beside counts alone, `classes` are names.
    rows = tables.get("by_class") or [row for row in tables.get("classes") or [] if isinstance(row, dict)]
    return [
        (
            str(row["class"]),
            [axes.figure(row[key]) for key in CLASS_FIGURES],
            axes.grouped(row["samples"] if "samples" in row else row["support"]),
        )
        for row in rows
    ]


def _groups(tables: dict[str, Any]) -> list[tuple[str, str, str, str, str]]:
    """Column, value, samples, AUROC, its interval."""
    return [
        (
            str(row["column"]),
            str(row["value"]),
            axes.grouped(row["samples"]),
            axes.figure(row["auroc"]),
            _interval(row),
        )
        for row in tables.get("groups") or []
    ]


def _shortcuts(tables: dict[str, Any]) -> list[tuple[str, str, str, bool]]:
    """Name, AUROC, its interval, whether that is more than chance."""
    return [
        (str(row["name"]), axes.figure(row["auroc"]), _interval(row), row["low"] > 0.5)
        for row in tables.get("shortcuts") or []
    ]


def _interval(row: dict[str, Any]) -> str:
    low, high = row.get("low"), row.get("high")
    if low is None or high is None:
        return axes.figure(None)
    return _("{low} to {high}").format(low=axes.figure(low), high=axes.figure(high))

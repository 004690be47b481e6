"""Curves as SVG that is written into a page: text keeps its size and lines their width at any page width.

A chart is two drawings side by side: the labels of the vertical axis in a fixed width, and the plot in
all that is left. In the plot curves are stretched (`preserveAspectRatio="none"`) and text is not, because
its place is given in percent. Colours are classes; the page's style sheet says what they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from caudal.runs.report.axes import Ticks

Column = npt.NDArray[np.float64]

_WIDE = 1000  # units of the stretched drawing
_MOST_POINTS = 700
_TOP_PX, _BOTTOM_PX = 14, 26


@dataclass(frozen=True)
class Line:
    """A curve through (x, y), drawn with the class `style`; with `dots` each point is marked."""

    x: Column
    y: Column
    style: str
    dots: bool = False


@dataclass(frozen=True)
class Rule:
    """A level drawn across the plot, with its name at the right end."""

    y: float
    text: str
    style: str


@dataclass(frozen=True)
class Mark:
    """A point that is ringed and named; or, without `y`, an upright line."""

    x: float
    text: str
    y: float | None = None


@dataclass(frozen=True)
class Chart:
    """What to draw: `about` is read aloud in place of the picture; ranges are (low, high)."""

    about: str
    lines: Sequence[Line]
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    x_ticks: Ticks
    y_ticks: Ticks
    rules: Sequence[Rule] = ()
    marks: Sequence[Mark] = ()
    height_px: int = 240


def thinned(x: Column, y: Column, most: int = _MOST_POINTS) -> tuple[Column, Column]:
    """The least and the greatest of every few points, so that no spike is lost."""
    if len(x) <= most:
        return x, y
    edges = np.linspace(0, len(x), most // 2 + 1).astype(int)
    kept = []
    for start, end in pairwise(edges):
        part = y[start:end]
        if np.isnan(part).all():
            continue
        kept += sorted({start + int(np.nanargmin(part)), start + int(np.nanargmax(part))})
    return x[kept], y[kept]


def smoothed(y: Column, reach: int) -> Column:
    """The mean over `reach` points on both sides, over fewer at the ends."""
    sums = np.concatenate([[0.0], np.cumsum(y)])
    at = np.arange(len(y))
    low, high = np.maximum(0, at - reach), np.minimum(len(y), at + reach + 1)
    mean: Column = (sums[high] - sums[low]) / (high - low)
    return mean


def draw(chart: Chart) -> Markup:
    """The chart as HTML."""
    plot = _Plot(chart)
    labels = "".join(
        f'<text x="100%" y="{plot.y_px(value) + 4:.1f}" text-anchor="end">{escape(text)}</text>'
        for value, text in chart.y_ticks
    )
    high = chart.height_px
    return Markup(
        f'<div class="chart" role="img" aria-label="{escape(chart.about)}">'
        f'<svg class="scale" width="58" height="{high}" aria-hidden="true">{labels}</svg>'
        f'<svg class="plot" width="100%" height="{high}" aria-hidden="true">{plot.inside()}</svg></div>'
    )


class _Plot:
    """The right-hand drawing."""

    def __init__(self, chart: Chart) -> None:
        self._chart = chart
        self._tall = chart.height_px - _TOP_PX - _BOTTOM_PX

    def y_px(self, value: float) -> float:
        low, high = self._chart.y_range
        return _TOP_PX + self._tall * (1 - (value - low) / ((high - low) or 1))

    def _x(self, value: float, whole: float) -> float:
        low, high = self._chart.x_range
        return whole * (value - low) / ((high - low) or 1)

    def inside(self) -> str:
        chart = self._chart
        grid = "".join(self._level(value, "grid") for value, _text in chart.y_ticks)
        rules = "".join(self._level(rule.y, rule.style) for rule in chart.rules)
        uprights = "".join(self._upright(mark) for mark in chart.marks if mark.y is None)
        curves = "".join(self._curve(line) for line in chart.lines)
        dots = "".join(self._dots(line) for line in chart.lines if line.dots or len(line.x) == 1)
        names = "".join(self._rule_name(rule) for rule in chart.rules)
        points = "".join(self._mark(mark) for mark in chart.marks if mark.y is not None)
        stretched = (
            f'<svg x="0" y="0" width="100%" height="{chart.height_px}" '
            f'viewBox="0 0 {_WIDE} {chart.height_px}" preserveAspectRatio="none" overflow="visible">'
            f"{curves}</svg>"
        )
        return grid + rules + uprights + stretched + dots + names + points + self._bottom()

    def _level(self, value: float, style: str) -> str:
        y = self.y_px(value)
        return f'<line class="{style}" x1="0" x2="100%" y1="{y:.1f}" y2="{y:.1f}"/>'

    def _curve(self, line: Line) -> str:
        x, y = thinned(line.x, line.y)
        parts, pen = [], "M"
        for at, value in zip(x, y, strict=True):
            if np.isnan(value):
                pen = "M"
                continue
            parts.append(f"{pen}{self._x(at, _WIDE):.1f} {self.y_px(value):.1f}")
            pen = "L"
        return f'<path class="curve {line.style}" vector-effect="non-scaling-stroke" d="{"".join(parts)}"/>'

    def _dots(self, line: Line) -> str:
        if len(line.x) > 60:
            return ""
        return "".join(
            f'<circle class="dot {line.style}" cx="{self._x(x, 100):.2f}%" cy="{self.y_px(y):.1f}" r="2.6"/>'
            for x, y in zip(line.x, line.y, strict=True)
            if not np.isnan(y)
        )

    def _rule_name(self, rule: Rule) -> str:
        # Below its line where there is no room above.
        y = self.y_px(rule.y)
        y = y - 5 if y > _TOP_PX + 4 else y + 13
        return f'<text class="name" x="100%" y="{y:.1f}" text-anchor="end">{escape(rule.text)}</text>'

    def _upright(self, mark: Mark) -> str:
        x, foot = self._x(mark.x, 100), _TOP_PX + self._tall
        return (
            f'<line class="upright" x1="{x:.2f}%" x2="{x:.2f}%" y1="{_TOP_PX}" y2="{foot}"/>'
            f'<text class="name" x="{x:.2f}%" dx="4" y="{foot - 6}">{escape(mark.text)}</text>'
        )

    def _mark(self, mark: Mark) -> str:
        assert mark.y is not None
        x, y = self._x(mark.x, 100), self.y_px(mark.y)
        anchor = "start" if x < 15 else "end" if x > 85 else "middle"
        # Below, where the curves of a better figure do not pass; above where there is no room.
        foot = y + 20 if y + 24 < _TOP_PX + self._tall else y - 11
        return (
            f'<circle class="mark" cx="{x:.2f}%" cy="{y:.1f}" r="5"/>'
            f'<text class="name strong" x="{x:.2f}%" y="{foot:.1f}" text-anchor="{anchor}">'
            f"{escape(mark.text)}</text>"
        )

    def _bottom(self) -> str:
        texts = []
        for value, text in self._chart.x_ticks:
            x = self._x(value, 100)
            anchor = "start" if x < 2 else "end" if x > 95 else "middle"
            texts.append(
                f'<text x="{x:.2f}%" y="{self._chart.height_px - 7}" text-anchor="{anchor}">'
                f"{escape(text)}</text>"
            )
        return "".join(texts)

"""A page of which steps of sequences, or nodes of graphs, spoke for what a model said. Knows no model."""

from __future__ import annotations

import time
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from caudal import __version__
from caudal.core.files import write_whole
from caudal.core.messages import _, language
from caudal.runs.explained_rows import ExplainedRows, Values
from caudal.runs.report import axes
from caudal.runs.report.charts import Chart, Line, draw
from caudal.runs.report.curves import Figure

_MOST_DRAWN = 150  # nodes; of more nothing can be seen
_ROWS = 8
_STYLES = ("main", "second", "third")
_SIDE = 420
_ROUNDS = 120
_MARGIN = 1.05  # a tenth of the places has to matter this much more than places by chance


def write_steps_and_nodes(out: Path, items: Sequence[ExplainedRows], *, title: str) -> None:
    """Write the page.

    Raises:
        DiskFull: no space was left; an earlier page stays.
    """
    env = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.globals["_"] = _
    text = env.get_template("steps_and_nodes.html.j2").render(
        language=language(),
        version=__version__,
        written=time.strftime("%Y-%m-%d %H:%M"),
        title=title,
        items=[shown(item) for item in items],
        graphs=any(item.edges is not None for item in items),
    )
    write_whole(out, lambda part: part.write_text(text, encoding="utf-8"))


def shown(item: ExplainedRows) -> dict[str, Any]:
    """What the part of a page says of a sample."""
    order = np.argsort(-np.abs(item.values), kind="stable")[:_ROWS]
    matters = item.fall > _MARGIN * max(item.fall_by_chance, 0.0)
    return {
        "name": item.name,
        "target": item.target,
        "probability": axes.figure(item.probability),
        "truth": item.truth,
        "figures": _curves(item) if item.edges is None else [],
        "drawing": None if item.edges is None else _graph(item),
        "places": [(int(k), f"{item.values[k]:+.3g}") for k in order.tolist()],
        "missed": axes.percent(item.missed),
        "fall": f"{item.fall:.3g}",
        "by_chance": f"{item.fall_by_chance:.3g}",
        "matters": matters,
        "of": _("step") if item.edges is None else _("node"),
    }


def _curves(item: ExplainedRows) -> list[Figure]:
    """The sequence itself, and below it what each step gave."""
    steps = np.arange(len(item.values), dtype=np.float64)
    drawn = item.drawn()
    chosen = [
        (style, f"{number}", y)
        for style, number, y in zip(_STYLES, drawn.columns, drawn.features.T, strict=False)
    ]
    legend = [(style, _("feature {number}").format(number=name)) for style, name, _y in chosen]
    lines = [Line(steps, np.asarray(y, np.float64), style) for style, _name, y in chosen]
    above = [Line(steps, item.values, "fourth")]
    return [
        _figure(_("Sequence"), lines, steps, legend, 180),
        _figure(_("For and against"), above, steps, [("fourth", _("what a step gave to the score"))], 130),
    ]


def _figure(
    title: str, lines: list[Line], steps: Values, legend: list[tuple[str, str]], height_px: int
) -> Figure:
    every = np.concatenate([line.y[np.isfinite(line.y)] for line in lines] or [np.zeros(1)])
    low, high = (float(every.min()), float(every.max())) if len(every) else (0.0, 1.0)
    last = max(1.0, float(steps[-1])) if len(steps) else 1.0
    chart = Chart(
        about=_("{title} along {count} steps.").format(title=title, count=len(steps)),
        lines=lines,
        x_range=(0.0, last),
        y_range=(low, high if high > low else low + 1),
        x_ticks=axes.ticks(0.0, last),
        y_ticks=axes.ticks(low, high, 4),
        height_px=height_px,
    )
    return Figure(title, draw(chart), legend, _("step"), wide=True)


def _graph(item: ExplainedRows) -> Markup | None:
    """The graph, its nodes as large and as full as what they gave; `None` where it has too many."""
    assert item.edges is not None
    count = len(item.values)
    if not 0 < count <= _MOST_DRAWN:
        return None
    at = layout(count, item.edges) * (_SIDE - 40) + 20
    most = float(np.abs(item.values).max()) or 1.0
    pairs = np.unique(np.sort(item.edges, 1), axis=0)
    lines = "".join(
        '<line class="edge" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>'.format(*at[a], *at[b])
        for a, b in pairs.tolist()
    )
    nodes = "".join(
        f'<circle class="{"for" if value > 0 else "against"}" cx="{x:.1f}" cy="{y:.1f}" '
        f'r="{5 + 7 * abs(value) / most:.1f}" style="fill-opacity:{0.12 + 0.88 * abs(value) / most:.2f}">'
        f"<title>{escape(_node(k, value))}</title></circle>"
        for k, ((x, y), value) in enumerate(zip(at.tolist(), item.values.tolist(), strict=True))
    )
    about = _("Graph of {count} nodes; full ones gave most to the score.").format(count=count)
    return Markup(
        f'<svg class="graph" viewBox="0 0 {_SIDE} {_SIDE}" role="img" aria-label="{escape(about)}">'
        f"{lines}{nodes}</svg>"
    )


def _node(number: int, value: float) -> str:
    return _("node {number}: {value}").format(number=number, value=f"{value:+.3g}")


def layout(count: int, edges: npt.NDArray[np.int64]) -> Values:
    """A place for each node in the unit square, neighbours near each other (Fruchterman, Reingold, 1991)."""
    angle = 2 * np.pi * np.arange(count) * 0.6180339887
    at = np.stack([np.cos(angle), np.sin(angle)], 1) * np.sqrt((np.arange(count)[:, None] + 0.5) / count)
    pairs = edges[edges[:, 0] != edges[:, 1]] if len(edges) else np.zeros((0, 2), np.int64)
    near = 1.6 / np.sqrt(count)
    for turn in range(_ROUNDS):
        apart = at[:, None] - at[None]
        far = np.maximum(np.linalg.norm(apart, axis=2, keepdims=True), 1e-3)
        push = (apart / far * near**2 / far).sum(1)
        pull = np.zeros_like(at)
        if len(pairs):
            between = at[pairs[:, 0]] - at[pairs[:, 1]]
            force = between * np.linalg.norm(between, axis=1, keepdims=True) / near
            np.add.at(pull, pairs[:, 0], -force)
            np.add.at(pull, pairs[:, 1], force)
        step = push + pull - 0.3 * at
        length = np.maximum(np.linalg.norm(step, axis=1, keepdims=True), 1e-9)
        at = at + step / length * np.minimum(length, 0.15 * (1 - turn / _ROUNDS))
    low, high = at.min(0), at.max(0)
    return np.asarray((at - (low + high) / 2) / (float((high - low).max()) or 1.0) + 0.5)

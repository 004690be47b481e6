"""Which curves a run's page shows: memory, loss, learning rate, held-out figures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from caudal.core.messages import _
from caudal.core.units import Bytes
from caudal.runs.report import axes
from caudal.runs.report.charts import Chart, Column, Line, Mark, Rule, draw, smoothed
from caudal.runs.report.story import Story
from caudal.runs.report.words import metric_name

_MOST_CLASS_CURVES = 4


@dataclass(frozen=True)
class Figure:
    """A chart with its title, what its curves are (style, name), and what it lies along."""

    title: str
    svg: Markup
    legend: list[tuple[str, str]]
    along: str
    wide: bool = False


def curves(story: Story) -> list[Figure]:
    """Every chart that the run has points for."""
    made = (_memory(story, "ram"), _memory(story, "vram"), _loss(story), _held_out(story), _rate(story))
    return [figure for figure in made if figure is not None]


def _memory(story: Story, pool: str) -> Figure | None:
    at, held = story.column("read_at"), story.column(pool)
    if not len(at) or np.isnan(held).all():
        return None
    peak, rules = float(np.nanmax(held)), []
    if story.plan is not None:
        budget = (story.plan.memory.ram if pool == "ram" else story.plan.memory.vram) or Bytes(0)
        predicted = story.plan.memory.predicted("ram" if pool == "ram" else "vram")
        if budget:
            rules.append(Rule(float(budget), _("budget {bytes}").format(bytes=budget), "budget"))
        rules.append(Rule(float(predicted), _("predicted {bytes}").format(bytes=predicted), "promise"))
    high = 1.04 * max([peak, *(rule.y for rule in rules)])
    last = max(float(at[-1]), 1.0)
    name = _("RAM") if pool == "ram" else _("VRAM")
    about = _("{pool} held over time: at most {peak} in {time}.").format(
        pool=name, peak=Bytes(peak), time=axes.seconds(last)
    )
    chart = Chart(
        about=" ".join([about, *(rule.text for rule in rules)]),
        lines=[Line(at, held, "main")],
        x_range=(0.0, last),
        y_range=(0.0, high),
        x_ticks=axes.time_ticks(last),
        y_ticks=axes.byte_ticks(high),
        rules=rules,
        marks=[Mark(x, _("resumed")) for x in story.resumed_at],
    )
    title = _("{pool} over time").format(pool=name)
    return Figure(title, draw(chart), [("main", _("held, read once a second"))], _("time at work"), wide=True)


def _range(values: Column) -> tuple[float, float]:
    """The range of an axis: a little more than the values, cut to whole ticks below."""
    low, high = float(values.min()), float(values.max())
    room = 0.08 * ((high - low) or abs(high) or 1.0)
    return (max(0.0, low - room) if low >= 0 else low - room), high + room


def _along_steps(story: Story) -> tuple[tuple[float, float], axes.Ticks]:
    last = float(max(story.done_steps, 1))
    return (0.0, last), axes.whole_ticks(last)


def _loss(story: Story) -> Figure | None:
    steps, loss = story.column("steps"), story.column("losses")
    finite = np.isfinite(loss)
    steps, loss = steps[finite], loss[finite]
    if not len(loss):
        return None
    reach = max(1, len(loss) // 50)
    soft = smoothed(loss, reach)
    x_range, x_ticks = _along_steps(story)
    # A few wild first steps must not flatten the rest.
    low, high = _range(np.clip(loss, None, np.quantile(loss, 0.995)))
    chart = Chart(
        about=_("Training loss over {steps} steps, from {first} to {last}.").format(
            steps=len(loss), first=axes.figure(float(soft[0])), last=axes.figure(float(soft[-1]))
        ),
        lines=[Line(steps, np.minimum(loss, high), "faint"), Line(steps, np.minimum(soft, high), "main")],
        x_range=x_range,
        y_range=(low, high),
        x_ticks=x_ticks,
        y_ticks=axes.ticks(low, high),
    )
    legend = [("faint", _("each step")), ("main", _("mean of {count}").format(count=2 * reach + 1))]
    return Figure(_("Training loss"), draw(chart), legend, _("step"))


def _rate(story: Story) -> Figure | None:
    steps, rate = story.column("steps"), story.column("rates")
    if not len(rate):
        return None
    x_range, x_ticks = _along_steps(story)
    high = 1.06 * float(rate.max()) or 1.0
    chart = Chart(
        about=_("Learning rate, at most {rate:.2g}.").format(rate=float(rate.max())),
        lines=[Line(steps, rate, "main")],
        x_range=x_range,
        y_range=(0.0, high),
        x_ticks=x_ticks,
        y_ticks=axes.ticks(0.0, high, 3),
        height_px=130,
    )
    return Figure(_("Learning rate"), draw(chart), [], _("step"), wide=True)


def _held_out(story: Story) -> Figure | None:
    headline = story.headline
    names = _drawn(story, headline)
    found = [(name, *_series(story, name)) for name in names]
    found = [row for row in found if len(row[1])]
    if not found:
        return None
    styles = ["main", "second", "third", "fourth", "fifth", "sixth"]
    low, high = _range(np.concatenate([y for _name, _x, y in found]))
    high = min(high, 1.0) if max(y.max() for _name, _x, y in found) <= 1 else high
    x_range, x_ticks = _along_steps(story)
    best = story.best
    value = best.metrics.get(headline) if best else None
    marks = []
    if best and value is not None:
        marks = [Mark(float(best.step), _("best {value}").format(value=axes.figure(value)), value)]
    chart = Chart(
        about=_("{metric} on the held-out part at {count} steps; best {value}.").format(
            metric=metric_name(headline), count=len(story.scores), value=axes.figure(value)
        ),
        lines=[
            Line(x, y, style, dots=True)
            for style, (_name, x, y) in reversed([*zip(styles, found, strict=False)])
        ],
        x_range=x_range,
        y_range=(low, high),
        x_ticks=x_ticks,
        y_ticks=axes.ticks(low, high),
        marks=marks,
    )
    legend = [(style, _curve_name(name)) for style, (name, _x, _y) in zip(styles, found, strict=False)]
    return Figure(_("Held-out part"), draw(chart), legend, _("step"))


def _curve_name(key: str) -> str:
    """`iou_3` is the IoU of class 3."""
    base, _sep, tail = key.partition("_")
    return (
        _("{metric} of class {name}").format(metric=metric_name(base), name=tail)
        if tail
        else metric_name(key)
    )


def _drawn(story: Story, headline: str) -> list[str]:
    """The headline; with several classes to find, that of each; else the figure that stands next to it."""
    keys = list(story.scores[-1].metrics) if story.scores else []
    names = [key.removeprefix("support_") for key in keys if key.startswith("support_")][1:]
    if len(names) > 1:
        return [headline, *(f"{headline}_{name}" for name in names[:_MOST_CLASS_CURVES])]
    others = [key for key in keys if key != headline and "_" not in key and key != "images"]
    return [headline, *others[:1]]


def _series(story: Story, name: str) -> tuple[Column, Column]:
    points = [(s.step, s.metrics[name]) for s in story.scores if s.metrics.get(name) is not None]
    return (
        np.array([step for step, _value in points], np.float64),
        np.array([value for _step, value in points], np.float64),
    )

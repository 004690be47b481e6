"""A story as a page: what is shown, in which words and figures; how it looks is in `page.html.j2`."""

from __future__ import annotations

import base64
import shlex
import time
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from caudal import __version__
from caudal.core.messages import _, language
from caudal.core.units import Bytes
from caudal.data.locations import relocated
from caudal.runs.explained_rows import kept
from caudal.runs.facts import SetFacts
from caudal.runs.report import axes, paint
from caudal.runs.report.curves import curves
from caudal.runs.report.example import Example
from caudal.runs.report.examples import draw_examples
from caudal.runs.report.held_out import CLASS_FIGURES, HeldOut, held_out
from caudal.runs.report.odd_examples import draw_odd_examples
from caudal.runs.report.promise import POOLS, pool_page, promises
from caudal.runs.report.steps_and_nodes import shown
from caudal.runs.report.story import Story
from caudal.runs.report.words import is_count, metric_name, outcome_word
from caudal.runs.work.normal_choice import AUTO
from caudal.tasks.base import Metrics


def render(story: Story) -> str:
    """The page as HTML. Draws examples with the model of the run, if it has one."""
    env = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.globals["_"] = _
    examples, why = _examples(story)
    of_samples = story.plan is not None and isinstance(story.plan.facts, SetFacts)
    seen = held_out(story.folder)
    return env.get_template("page.html.j2").render(
        language=language(),
        version=__version__,
        written=time.strftime("%Y-%m-%d %H:%M"),
        title=story.folder.path.resolve().name,
        outcome=outcome_word(story.outcome),
        state=story.outcome,
        story=story,
        headline=_headline(story),
        facts=_facts(story),
        about=_about(story),
        pools=[page for pool in POOLS if (page := pool_page(story, pool))],
        memory=story.plan.memory if story.plan else None,
        promises=promises(story),
        acts=[(axes.seconds(at), words) for at, words in story.acts],
        charts=curves(story),
        of_samples=of_samples,
        held_out=seen,
        explained=[shown(item) for item in kept(story.folder.path)],
        scalars=_scalars(story, seen),
        classes=_classes(story, seen),
        examples=[_shown(number, example) for number, example in enumerate(examples, 1)],
        no_examples=why,
        legend=_legend(story),
        shade=f"rgb{paint.SHADE}",
        shade_share=paint.SHADE_SHARE,
        commands=_commands(story),
        spec=story.spec.to_toml(),
    )


def _examples(story: Story) -> tuple[list[Example], str]:
    if story.plan is None:
        return [], _("The run has no plan.")
    draw = draw_odd_examples if story.spec.task == "anomaly" else draw_examples
    return draw(story.folder, story.plan)


def _headline(story: Story) -> dict[str, str] | None:
    """The one figure that says how good the model is, and on what it was measured."""
    name = story.headline
    if story.metrics_are_final:
        where = _scored_on(story.metrics, name)
        return {"name": metric_name(name), "value": axes.figure(story.metrics.get(name)), "where": where}
    best = story.best or (story.scores[-1] if story.scores else None)
    if best is None:
        return None
    where = _("best so far, at step {step}, on held-out windows").format(step=axes.grouped(best.step))
    return {"name": metric_name(name), "value": axes.figure(best.metrics.get(name)), "where": where}


def _scored_on(metrics: Metrics, name: str) -> str:
    """What a final figure is of, and how sure it is where that is known."""
    images, samples = metrics.get("images"), metrics.get("samples")
    if images:
        return _("mean over {count} held-out images").format(count=axes.grouped(images))
    where = _("on {count} held-out samples").format(count=axes.grouped(samples)) if samples else ""
    low, high = metrics.get(f"{name}_low"), metrics.get(f"{name}_high")
    if low is None or high is None:
        return where
    spread = _("95 %: {low} to {high}").format(low=axes.figure(low), high=axes.figure(high))
    return f"{where}; {spread}" if where else spread


def _facts(story: Story) -> list[tuple[str, str, str]]:
    """Name, value and a word on it of what stands beside the headline."""
    seconds = story.result.seconds if story.result and not story.resumed_at else story.seconds
    facts = [(_("Time"), axes.seconds(seconds or story.seconds), _steps(story))]
    if story.samples_per_second is not None:
        rate = f"{story.samples_per_second:.0f}"
        facts.append((_("Samples a second"), rate, _("measured over all steps")))
    if story.stall is not None:
        facts.append((_("Waiting for data"), axes.percent(story.stall), _("of the steps' time")))
    if story.peaks.get("ram"):
        budget = _("of {budget} allowed").format(budget=story.plan.memory.ram) if story.plan else ""
        facts.append((_("Peak memory"), str(Bytes(story.peaks["ram"])), budget))
    return facts


def _steps(story: Story) -> str:
    if story.done_steps >= story.total_steps:
        return _("{done} steps").format(done=axes.grouped(story.done_steps))
    return _("{done} of {total} steps").format(
        done=axes.grouped(story.done_steps), total=axes.grouped(story.total_steps)
    )


def _about(story: Story) -> list[tuple[str, str]]:
    """What was trained on what, as a short table."""
    spec, plan = story.spec, story.plan
    rows = [(_("Data"), ", ".join(str(relocated(one)) for one in spec.data.images))]
    if plan is not None:
        rows += [
            *plan.facts.rows(),
            (
                _("Batch"),
                _("{batch} {samples}, {micro} at once").format(
                    batch=spec.training.batch, samples=plan.facts.samples, micro=plan.micro_batch
                ),
            ),
            (_("Device"), f"{plan.device}, {plan.precision}"),
        ]
    rows.append((_("Model"), _model_name(story)))
    return rows


def _model_name(story: Story) -> str:
    """The model; where the spec left it open, the one that was taken."""
    named = story.spec.model.name
    card = story.folder.model / "model.json"  # its room would bring torch
    if named != AUTO or not card.is_file():
        return named
    taken = story.folder.read_json(card)["architecture"]
    return _("{model} (chosen by the data at hand)").format(model=taken)


def _is_of_rows(story: Story) -> bool:
    """Whether the model says something of every step or node, which is not explained."""
    card = story.folder.model / "model.json"
    return card.is_file() and bool(story.folder.read_json(card)["classes"].get("per_row"))


def _final(story: Story) -> dict[str, float | None]:
    if story.metrics_are_final:
        return story.metrics
    last = story.best or (story.scores[-1] if story.scores else None)
    return last.metrics if last else {}


def _class_names(story: Story) -> list[str]:
    return [key.removeprefix("support_") for key in _final(story) if key.startswith("support_")]


def _scalars(story: Story, seen: HeldOut) -> list[tuple[str, str]]:
    """Figures over all classes: name and value. Those of groups have a table of their own."""
    of_groups = {f"auroc_{column}_{value}" for column, value, *_figures in seen.groups}
    tails = tuple(f"_{name}" for name in _class_names(story))
    of_samples = story.plan is not None and isinstance(story.plan.facts, SetFacts)
    return [
        (
            metric_name(key, of_samples),
            axes.grouped(value) if is_count(key) and value is not None else axes.figure(value),
        )
        for key, value in _final(story).items()
        if not (tails and key.endswith(tails)) and key not in of_groups
    ]


def _classes(story: Story, seen: HeldOut) -> dict[str, Any] | None:
    """Figures of each class as a table: columns, rows, whether one has no figure."""
    if seen.by_class:
        missing = any("—" in figures for _name, figures, _samples in seen.by_class)
        columns = [metric_name(key) for key in CLASS_FIGURES]
        return {"columns": columns, "rows": seen.by_class, "missing": missing}
    metrics, names = _final(story), _class_names(story)
    if not names:
        return None
    tail = f"_{names[0]}"
    columns = [key.removesuffix(tail) for key in metrics if key.endswith(tail) and key != f"support{tail}"]
    rows = [
        (
            name,
            [axes.figure(metrics.get(f"{column}_{name}")) for column in columns],
            axes.grouped(metrics[f"support_{name}"] or 0),
        )
        for name in names
    ]
    missing = any(metrics.get(f"{column}_{name}") is None for column in columns for name in names)
    return {"columns": [metric_name(column) for column in columns], "rows": rows, "missing": missing}


def _shown(number: int, example: Example) -> dict[str, Any]:
    window = example.window
    where = (
        _("whole image, {height}×{width} px")
        if example.whole
        else _("{height}×{width} px at row {row}, column {col}")
    )
    return {
        "number": number,
        "name": example.name,
        "where": where.format(height=window.height, width=window.width, row=window.row, col=window.col),
        "figure": example.figure_name,
        "value": axes.figure(example.figure),
        "height": window.height,
        "width": window.width,
        "photo": _data_uri(example.photo),
        "panels": [(name, _data_uri(layer)) for name, layer in example.layers],
    }


def _data_uri(png: bytes) -> Markup:
    return Markup("data:image/png;base64," + base64.b64encode(png).decode())


def _legend(story: Story) -> list[tuple[str, str]]:
    """Colours of the example maps and what they mean."""
    if story.spec.task == "anomaly":
        odd = paint.CLASS_COLOURS[0]
        return [(_("above the threshold"), f"rgb{odd}")]
    names = _class_names(story)
    classes = [
        (_("class {name}").format(name=name), paint.CLASS_COLOURS[k % len(paint.CLASS_COLOURS)])
        for k, name in enumerate(names[1:])
    ]
    first = classes if len(classes) > 1 else []
    rest = [
        (_("right"), paint.RIGHT),
        (_("missed or another class") if first else _("missed"), paint.MISSED),
        (_("false alarm"), paint.FALSE_ALARM),
    ]
    return [(text, f"rgb{colour}") for text, colour in (*first, *rest)]


def _commands(story: Story) -> list[tuple[str, str]]:
    """How to go on: what a command does, and the command."""
    run = shlex.quote(str(story.folder.path))
    data = shlex.quote(str(relocated(story.spec.data.images[0])))
    rows = []
    if story.outcome != "succeeded":
        spec = shlex.quote(str(story.folder.spec))
        rows.append((_("Go on from the last checkpoint"), f"caudal train {spec} -o {run}"))
    if story.folder.model.is_dir():
        rows += _uses(story, run, data)
    return [*rows, (_("Write this page again"), f"caudal report {run}")]


def _uses(story: Story, run: str, data: str) -> list[tuple[str, str]]:
    """What a model of the task is used for."""
    if story.plan is not None and isinstance(story.plan.facts, SetFacts):
        rows = [
            (_("Write a row for each sample of another set"), f"caudal predict {run} DATA -o TABLE.csv"),
            (_("Score another set"), f"caudal evaluate {run} {data}"),
        ]
        if story.spec.task == "classification":
            rows.append((_("See what speaks for a class"), f"caudal explain {run} IMAGE.jpg -o WHY.html"))
        elif not _is_of_rows(story):
            rows.append(
                (_("See which steps or nodes speak for it"), f"caudal explain {run} DATA -o WHY.html")
            )
        return rows
    score = (
        _("Score images that were judged")
        if story.spec.task == "anomaly"
        else _("Score other images with masks")
    )
    return [
        (_("Map a raster or a folder of images"), f"caudal predict {run} IMAGE.tif -o MAP.tif"),
        (score, f"caudal evaluate {run} {data}"),
    ]

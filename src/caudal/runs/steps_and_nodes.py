"""Explains samples of sequences and graphs: from a model and files of samples to a page, or a table.

What it computes is in `inference/explain/places`, what it draws in `report/steps_and_nodes`.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from caudal.core.errors import UsageError
from caudal.core.files import write_whole
from caudal.core.messages import _
from caudal.core.units import Bytes
from caudal.data.sample_values import field_of
from caudal.inference.explain.places import Places, explain_places
from caudal.models.ragged import Graphs, Sequences
from caudal.runs.report.steps_and_nodes import ExplainedRows, write_steps_and_nodes
from caudal.runs.telling import Telling
from caudal.runs.work.set_model import SetModel
from caudal.runs.work.set_scores import task_truth
from caudal.runs.work.set_stream import scoring_batches
from caudal.runs.work.told_classes import Strangers

PLACED = ("sequence", "graph")
"""Tasks whose samples have places to explain."""


def check_page(page: Path) -> None:
    """Raise unless what is asked for is a page or a table.

    Raises:
        UsageError: it is neither.
    """
    if page.suffix not in (".html", ".csv"):
        raise UsageError(
            _("What steps and nodes gave is a page or a table, and {path} is no name for one.").format(
                path=page
            ),
            _("Give a .html or a .csv with -o."),
        )


def explain_rows(
    model: SetModel,
    data: str,
    page: Path,
    *,
    title: str,
    target: str | None,
    labels: str | None,
    most: int,
    budget: Bytes,
    told: Telling,
) -> tuple[dict[str, float | None], Bytes, list[str]]:
    """Explain the first `most` samples of `data`; gives figures, bytes that were predicted, and warnings.

    Raises:
        DataError: the samples are not what the model was trained on.
        DoesNotFit: it takes more than `budget`.
        UsageError: an unknown class, or a model that says something of every step or node.
    """
    if model.sought.per_row:
        raise UsageError(
            _("This model says something of every step or node, which is not explained."),
            _("Explain a model that says something of whole sequences or graphs."),
        )
    opened, spec = model.open(data, labels, told.scanned)
    chosen = opened.samples.only(opened.members[:most])
    predicted = model.roughly(chosen, budget)
    told.started(model.card.task, model.device, len(chosen), budget, predicted)
    model.model.eval()
    prepare = model.prepare(opened, spec)
    known = bool(model.told.field)
    strangers = Strangers(model.told, field_of(opened.samples, model.told.field))
    items: list[ExplainedRows] = []
    with scoring_batches(chosen, 1, spec.data.threads) as stream:
        for batch in stream:
            strangers.look(batch)
            sample, truth = prepare(batch, slice(0, 1))
            file, within = opened.samples.where(int(batch.samples[0]))
            name = f"{Path(opened.samples.columns.names[file]).name} · {within}"
            items.append(_explained(model, sample, name, target, task_truth(truth) if known else None))
            told.part(len(items), len(chosen))
    if page.suffix == ".csv":
        write_whole(page, lambda part: _write_table(part, items))
    else:
        write_steps_and_nodes(page, items, title=title)
    first = items[0]
    figures: dict[str, float | None] = {
        "samples": float(len(items)),
        "probability": first.probability,
        "missed": first.missed,
        "fall": first.fall,
        "fall_random": first.fall_by_chance,
    }
    return (
        figures,
        predicted,
        [
            *opened.notes,
            *opened.samples.broken.words(),
            *model.warnings,
            *strangers.warnings(),
        ],
    )


def _explained(
    model: SetModel, sample: Sequences | Graphs, name: str, target: str | None, truth: Any
) -> ExplainedRows:
    sought = model.sought
    with torch.no_grad():
        output = model.model(sample)
        said = model.task.probabilities(output)[0].tolist()
    probabilities = [1 - said[0], said[0]] if sought.kind == "binary" else said
    if target is not None and target not in sought.names:
        raise UsageError(
            _("There is no class “{name}”.").format(name=target),
            _("Use one of: {names}.").format(names=", ".join(sought.names)),
        )
    chosen = sought.names.index(target) if target is not None else int(np.argmax(np.abs(probabilities)))
    column = 0 if sought.kind == "binary" else chosen
    sign = -1.0 if sought.kind == "binary" and chosen == 0 else 1.0
    found = explain_places(model.model, sample, lambda scores: sign * scores[:, column].float())
    return _record(model, sample, name, sought.names[chosen], probabilities[chosen], found, truth)


def _record(
    model: SetModel,
    sample: Sequences | Graphs,
    name: str,
    target: str,
    probability: float,
    found: Places,
    truth: Any,
) -> ExplainedRows:
    features = sample.x_BTF[0] if isinstance(sample, Sequences) else sample.x_NF
    edges = None if isinstance(sample, Sequences) else sample.edges_2E.T.cpu().numpy()
    said = None
    if truth is not None and model.sought.kind in ("binary", "multiclass") and int(truth[0]) >= 0:
        said = model.sought.names[int(truth[0])]
    return ExplainedRows(
        name=name,
        target=target,
        probability=probability,
        features=features.double().cpu().numpy(),
        values=found.steps_or_nodes,
        edges=edges,
        missed=found.missed,
        fall=found.fall,
        fall_by_chance=found.fall_by_chance,
        truth=said,
    )


def _write_table(part: Path, items: list[ExplainedRows]) -> None:
    with part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["sample", "target", "place", "gave"])
        writer.writerows(_rows(items))


def _rows(items: list[ExplainedRows]) -> Iterator[list[Any]]:
    for item in items:
        for place, value in enumerate(item.values.tolist()):
            yield [item.name, item.target, place, f"{value:.6g}"]

"""Explains samples of sequences and graphs: from a model and files of samples to a page, or a table.

What it computes is in `inference/explain/places`, what it draws in `report/steps_and_nodes`.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from caudal.core.errors import UsageError
from caudal.core.files import write_whole
from caudal.core.messages import _
from caudal.core.units import Bytes
from caudal.data.sample_values import field_of
from caudal.runs.explained_rows import ExplainedRows
from caudal.runs.report.steps_and_nodes import write_steps_and_nodes
from caudal.runs.telling import Telling
from caudal.runs.work.explained import explain_sample, name_of
from caudal.runs.work.set_model import SetModel
from caudal.runs.work.set_scores import task_truth
from caudal.runs.work.set_stream import scoring_batches
from caudal.runs.work.told_classes import Strangers


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
            name, said = name_of(opened, int(batch.samples[0])), task_truth(truth) if known else None
            items.append(explain_sample(model.model, model.task, model.sought, sample, name, target, said))
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


def _write_table(part: Path, items: list[ExplainedRows]) -> None:
    with part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["sample", "target", "place", "gave"])
        writer.writerows(_rows(items))


def _rows(items: list[ExplainedRows]) -> Iterator[list[Any]]:
    for item in items:
        for place, value in enumerate(item.values.tolist()):
            yield [item.name, item.target, place, f"{value:.6g}"]

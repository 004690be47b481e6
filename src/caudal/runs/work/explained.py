"""Which steps or nodes of a sample spoke for what a model says of it; and of a few that are scored."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from caudal.core.errors import UsageError
from caudal.core.messages import _
from caudal.data.batches import Batch
from caudal.data.sample_files.base import Ints
from caudal.inference.explain.places import STEPS, Places, explain_places
from caudal.models.ragged import Graphs, Sequences
from caudal.runs.explained_rows import ExplainedRows
from caudal.runs.work.kind import Inputs, SampleTask
from caudal.runs.work.open_samples import Opened
from caudal.runs.work.set_scores import task_truth
from caudal.runs.work.set_stream import scoring_batches
from caudal.runs.work.sought import Sought

PLACED = ("sequence", "graph")
"""Tasks whose samples have places to explain."""
_MOST = 3  # samples
_MOST_PLACES = 512  # of each
_LOOKED_AT = 4096  # samples, to find some that are not too large
_SECONDS = 10.0
_FEW_STEPS = STEPS[:1]


def explain_sample(
    model: nn.Module,
    task: SampleTask,
    sought: Sought,
    sample: Sequences | Graphs,
    name: str,
    target: str | None,
    truth: Any,
    steps: tuple[int, ...] = STEPS,
) -> ExplainedRows:
    """What each place of one sample gave to the score of the class `target`, or of the one that is said.

    `model` is in evaluation mode; `steps` as `explain_places` takes them.

    Raises:
        UsageError: there is no such class.
    """
    with torch.no_grad():
        said = task.probabilities(model(sample))[0].tolist()
    probabilities = [1 - said[0], said[0]] if sought.kind == "binary" else said
    if target is not None and target not in sought.names:
        raise UsageError(
            _("There is no class “{name}”.").format(name=target),
            _("Use one of: {names}.").format(names=", ".join(sought.names)),
        )
    chosen = sought.names.index(target) if target is not None else int(np.argmax(np.abs(probabilities)))
    column = 0 if sought.kind == "binary" else chosen
    sign = -1.0 if sought.kind == "binary" and chosen == 0 else 1.0
    found = explain_places(model, sample, lambda scores: sign * scores[:, column].float(), steps=steps)
    return _record(sought, sample, name, sought.names[chosen], probabilities[chosen], found, truth)


def _record(
    sought: Sought,
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
    if truth is not None and sought.kind in ("binary", "multiclass") and int(truth[0]) >= 0:
        said = sought.names[int(truth[0])]
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


def name_of(opened: Opened, number: int) -> str:
    """A sample's file, and its number there."""
    file, within = opened.samples.where(number)
    return f"{Path(opened.samples.columns.names[file]).name} · {within}"


def explain_some(
    model: nn.Module,
    task: SampleTask,
    sought: Sought,
    prepare: Callable[[Batch, slice], tuple[Any, Any]],
    opened: Opened,
    inputs: Inputs,
    members: Ints,
    threads: int,
) -> list[ExplainedRows]:
    """A few of the samples `members`, none that is long or large.

    One at a time, in less memory than a step of training takes, and in some seconds.
    """
    chosen = _some(opened, inputs, sought, members)
    items: list[ExplainedRows] = []
    if not len(chosen):
        return items
    began = time.monotonic()
    with scoring_batches(opened.samples.only(chosen), 1, threads) as stream:
        for batch in stream:
            sample, truth = prepare(batch, slice(0, 1))
            name = name_of(opened, int(batch.samples[0]))
            items.append(
                explain_sample(model, task, sought, sample, name, None, task_truth(truth), _FEW_STEPS)
            )
            if time.monotonic() - began > _SECONDS:
                break
    return items


def _some(opened: Opened, inputs: Inputs, sought: Sought, members: Ints) -> Ints:
    """Their numbers, in growing order."""
    near = members[:: max(1, len(members) // _LOOKED_AT)]
    places = opened.kind.places(opened.samples, inputs, near)
    near = near[(places > 0) & (places <= _MOST_PLACES)]
    # Apart from one another, as files lie in order of what they are.
    spread = np.linspace(0, len(near) - 1, min(_MOST, len(near))).round().astype(np.int64)
    return np.unique(near[spread]) if len(near) else near

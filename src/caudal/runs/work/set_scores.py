"""Predictions of a model for every sample of a set, batch by batch, in memory that does not grow with it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from caudal.data.sample_files.base import Ints
from caudal.data.sample_set import SampleSet
from caudal.data.text_column import TextColumn
from caudal.runs.work.open_samples import Opened
from caudal.runs.work.set_stream import scored_at_once, scoring_batches
from caudal.runs.work.sought import Sought
from caudal.tasks.base import Task
from caudal.training.precision import Precision
from caudal.training.step import Prepare

_MOST_GROUPS = 20  # values of a column


def task_truth(target: Any) -> npt.NDArray[Any]:
    """A target as the loss takes it, as the array that a scorer takes."""
    values = target if isinstance(target, torch.Tensor) else target.values
    array: npt.NDArray[Any] = values.cpu().numpy()
    return array


Found = tuple[npt.NDArray[np.float32], npt.NDArray[Any]]
"""Predictions of some samples, and their truth."""


def predictions(
    model: nn.Module,
    task: Task,
    prepare: Prepare,
    precision: Precision,
    samples: SampleSet,
    threads: int,
    at_once: int = 0,
) -> Iterator[tuple[Ints, Found]]:
    """Numbers of samples with what the model says of them, in the order in which they lie.

    `at_once` go through the model together; 0: as many as are usual.
    """
    was_training = model.training
    model.eval()
    try:
        with scoring_batches(samples, at_once or scored_at_once(samples), threads) as stream:
            for batch in stream:
                x, y = prepare(batch, slice(0, batch.size))
                with torch.inference_mode(), precision.autocast():
                    output = model(x)
                found = task.probabilities(output.float()).cpu().numpy()
                yield batch.samples.copy(), (found, task_truth(y))
    finally:
        model.train(was_training)


def shown_groups(opened: Opened, sought: Sought) -> dict[str, TextColumn]:
    """The columns of a table by which results are shown: those of a few values, what is learned left out."""
    return {
        name: texts
        for name, texts in opened.columns.items()
        if name != sought.field and 1 < len(set(texts)) <= _MOST_GROUPS
    }


def score_each(
    scorer: Any, found: Iterable[tuple[Ints, Found]], opened: Opened, groups: dict[str, TextColumn]
) -> None:
    """Give a scorer what was predicted, and, if it takes them, the groups of each sample."""
    for numbers, (predicted, truth) in found:
        if not opened.kind.takes_groups:
            scorer.add(predicted, truth)
            continue
        known = truth >= 0  # of no class that was learned, or without a label
        place = np.searchsorted(opened.members, numbers[known]).tolist()
        scorer.add(
            predicted[known],
            truth[known],
            {name: [texts[k] for k in place] for name, texts in groups.items()},
        )

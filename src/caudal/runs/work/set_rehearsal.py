"""What a probe measures of a run over samples: reading, scoring, and a batch of the largest for its steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from caudal.core.seeds import generator
from caudal.core.units import Bytes
from caudal.data.batches import Batch, Ragged
from caudal.data.sample_files.base import Ints
from caudal.data.sample_set import SampleSet
from caudal.memory.cost import Forward
from caudal.memory.meters import PeakMeter, charged_bytes
from caudal.runs.spec import RunSpec
from caudal.runs.work.kind import Inputs, Kind
from caudal.runs.work.set_scores import predictions
from caudal.runs.work.set_stream import (
    REHEARSED,
    least_ram,
    scored_at_once,
    scoring_batches,
    training_batches,
)
from caudal.runs.work.sought import Sought
from caudal.tasks.base import Task
from caudal.training.precision import Precision
from caudal.training.step import Parts, Prepare

_STEPS_OF_MANY_SIZES = 12
_DRAWS = 2000  # batches, of which the largest is rehearsed


class SetRehearsal:
    """See `Rehearsal`."""

    def __init__(self, spec: RunSpec, kind: Kind, samples: SampleSet, inputs: Inputs, sought: Sought) -> None:
        self._spec, self._kind, self._samples = spec, kind, samples
        self._inputs, self._sought = inputs, sought
        self.inputs, self.outputs = inputs.count, self.make_task().outputs()

    @property
    def config(self) -> dict[str, Any]:
        """See `Rehearsal.config`."""
        return self._inputs.config

    def load(self) -> None:
        """See `Rehearsal.load`."""

    def make_task(self) -> Task:
        """See `Rehearsal.make_task`."""
        return self._kind.make_task(self._spec, self._sought, None, {})

    def prepare(self, device: str) -> Prepare:
        """See `Rehearsal.prepare`."""
        return self._kind.prepare(self._spec, self._inputs, self._sought, None, device, True, self._samples)

    @property
    def parts(self) -> Parts | None:
        """See `Rehearsal.parts`."""
        return self._kind.parts(self._samples, self._inputs)

    def on_meta(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """See `Rehearsal.on_meta`: what goes in is a record of its own."""
        return None

    def decoding(self, meter: PeakMeter, threads: int) -> Bytes:
        """See `Rehearsal.decoding`."""
        batch = self._spec.training.batch
        chosen = self._largest(min(len(self._samples), 2 * batch))
        ram = least_ram(chosen, batch, threads)
        meter.reset()
        before = charged_bytes()
        with training_batches(chosen, ram, batch, seed=0, threads=threads, start=0, stop=REHEARSED) as stream:
            for _batch in stream:
                pass
        return Bytes(max(0, meter.peak() - before - ram))

    def forwards(self, model: nn.Module, task: Task, precision: Precision, room: Bytes) -> Sequence[Forward]:
        """See `Rehearsal.forwards`: samples are scored in batches of a fixed size."""
        return ()

    def scoring(self, model: nn.Module, task: Task, precision: Precision, meter: PeakMeter) -> Bytes:
        """See `Rehearsal.scoring`."""
        chosen = self._largest(REHEARSED * scored_at_once(self._samples))
        prepare = self._kind.prepare(
            self._spec, self._inputs, self._sought, None, precision.device, False, self._samples
        )
        meter.reset()
        before = charged_bytes()
        for _truth, _found in predictions(model, task, prepare, precision, chosen, self._spec.data.threads):
            pass
        return Bytes(max(0, meter.peak() - before))

    def guess(self, forwards: Sequence[Forward], size: int) -> float:
        """See `Rehearsal.guess`: the first step says it."""
        return 0.0

    @property
    def steps(self) -> int:
        """See `Rehearsal.steps`: what a heap becomes under batches of many sizes takes a few to see."""
        return 2 if self.parts is None else _STEPS_OF_MANY_SIZES

    def batch(self, size: int, number: int) -> Batch:
        """See `Rehearsal.batch`: where samples differ, the first is the one that takes most of many drawn."""
        chosen = self._largest(size)
        if self.parts is not None:
            chosen = self._samples.only(self._drawn(size, number))
        with scoring_batches(chosen, size, self._spec.data.threads) as stream:
            return _copy(next(iter(stream)), self._sought)

    def _drawn(self, size: int, number: int) -> Ints:
        """Different samples, as a run draws them; of `number` 0 the largest batch of `_DRAWS`, the largest
        sample in it.

        A batch of the largest samples of all would never come, and a plan for it would promise too much.
        """  # fmt: skip
        members = self._samples.chosen.samples if self._samples.chosen else np.arange(len(self._samples))
        draw, count = generator(self._spec.seed, "rehearsal", number), len(members)
        size = min(size, count)
        if number:
            return np.sort(members[draw.permutation(count)[:size]]).astype(np.int64)
        ragged = [f.name for f in self._samples.fields if f.ragged and f.name in self._inputs.fields]
        rows = sum(self._samples.rows(name, members) for name in ragged)
        drawn_DB = draw.integers(0, count, (_DRAWS, size))
        drawn_B = drawn_DB[int(np.argmax(np.asarray(rows)[drawn_DB].sum(1)))]
        chosen = np.unique([int(np.argmax(rows)), *drawn_B[1:]])
        spare = np.setdiff1d(np.arange(count), chosen, assume_unique=True)[: size - len(chosen)]
        return np.sort(members[np.concatenate([chosen, spare])]).astype(np.int64)

    def _largest(self, count: int) -> SampleSet:
        return self._samples.only(self._kind.largest(self._samples, self._inputs, count))


def _copy(batch: Batch, sought: Sought) -> Batch:
    arrays, ends = {}, {}
    for name in batch:
        found = batch.numpy(name)
        if isinstance(found, Ragged):
            arrays[name], ends[name] = np.array(found.values), np.array(found.ends)
        else:
            arrays[name] = np.array(found)
    truth = arrays.get(sought.field)
    if truth is not None and sought.values and not sought.per_row:
        # A run leaves out what has no label, and what it would say has no bearing on memory.
        truth[sought.classes_of(truth) < 0] = sought.values[0]
    return Batch(arrays, ends, batch.samples.copy(), batch.epoch, True)

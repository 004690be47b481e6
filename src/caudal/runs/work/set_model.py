"""A trained model of samples, ready to score others of their kind, or to say what it sees in them."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from caudal.core.errors import DataError, UsageError
from caudal.core.files import write_whole
from caudal.core.messages import _
from caudal.core.units import Bytes
from caudal.data.sample_files.base import Ints
from caudal.data.sample_set import SampleSet
from caudal.data.sample_split import TEST
from caudal.memory import margin, planner, vram
from caudal.memory.meters import PeakMeter, charged_bytes
from caudal.models import weights
from caudal.runs import assemble
from caudal.runs.machine import processors, settle
from caudal.runs.spec import DataSettings, ModelSettings, RunSpec
from caudal.runs.work.kind import Inputs, Kind, SampleTask, Statistics, Watchful
from caudal.runs.work.open_samples import KINDS, Opened, open_samples
from caudal.runs.work.set_scores import Found, predictions
from caudal.runs.work.set_stream import REHEARSED, least_ram, scored_at_once
from caudal.runs.work.sought import Sought

_WORK_BYTES = 3  # times a batch of the largest samples: what a model holds beside it, roughly


@dataclass
class SetModel:
    """See `load`."""

    model: nn.Module
    card: weights.ModelCard
    kind: Kind
    inputs: Inputs
    sought: Sought
    task: SampleTask
    device: str
    warnings: list[str] = field(default_factory=list)

    @classmethod
    def load(cls, path: Path, device: str) -> SetModel:
        """A run's or a model's folder.

        Raises:
            BadModel: there is no model that may be opened.
            DeviceMissing: `device` is not here.
        """
        settle()
        torch.set_num_threads(processors())
        where = vram.choose(device)
        model, card = weights.load(path / "model" if (path / "model").is_dir() else path)
        assemble.limit_threads(model, where)
        assert card.inputs is not None
        kind: Kind = KINDS.get(card.task)()
        sought = Sought.model_validate(card.classes)
        spec = RunSpec(task=card.task, data=DataSettings(images=("-",)))
        task = kind.make_task(spec, sought, None, card.inputs["chosen"])
        inputs = Inputs.model_validate(card.inputs["inputs"])
        return cls(model.to(where), card, kind, inputs, sought, task, where)

    def open(self, data: str, labels: str | None, tick: Callable[[int, int], None]) -> tuple[Opened, RunSpec]:
        """Samples of the kind that the model was trained on.

        Raises:
            DataError: they have other fields, or another number of features.
        """
        assert self.card.inputs is not None
        stored = DataSettings.model_validate(self.card.inputs["data"])
        settings = stored.model_copy(update={"images": (data,), "labels": labels})
        built = ModelSettings(name=self.card.architecture, config=self.card.config)
        spec = RunSpec(task=self.card.task, data=settings, model=built)
        opened = open_samples(spec, tick)
        besides = frozenset({self.sought.field, *opened.columns, "split"})
        found = self.kind.inputs(opened.samples, besides)
        if not self.inputs.fits(found):
            raise DataError(
                _("{path} holds {found}, and the model was trained on {wanted}.").format(
                    path=data, found=found.shape, wanted=self.inputs.shape
                ),
                _("Use samples with the same fields and features."),
            )
        return opened, spec

    def needed(self, samples: SampleSet) -> Bytes:
        """Roughly what scoring takes, this process included: as its run measured it, or else a guess."""
        measured = int((self.card.memory or {}).get("scoring", 0))
        batch = least_ram(samples, scored_at_once(samples), processors())
        return Bytes(charged_bytes() + max(measured, (1 + _WORK_BYTES) * batch))

    def roughly(self, samples: SampleSet, budget: Bytes) -> Bytes:
        """What it will take, roughly.

        Raises:
            DoesNotFit: more than the budget.
        """
        needed = self.needed(samples)
        planner.refuse_above(budget, needed)
        return needed

    def check(self, opened: Opened, spec: RunSpec, budget: Bytes) -> Bytes:
        """What it will take, as a few batches of the largest samples really do.

        Raises:
            DoesNotFit: more than the budget.
        """
        self.roughly(opened.samples, budget)
        meter, said = PeakMeter(), list(self.warnings)
        at_once = scored_at_once(opened.samples)
        # The last batch is of another size, for which kernels of its own are made and kept.
        count = REHEARSED * at_once + len(opened.samples) % at_once
        for _scored in self.each(opened, spec, self.kind.largest(opened.samples, self.inputs, count)):
            pass
        self.warnings[:] = said  # what it met is met again
        needed = Bytes(meter.peak() * (1 + margin.FIRST))
        planner.refuse_above(budget, needed)
        return needed

    def each(self, opened: Opened, spec: RunSpec, members: Ints) -> Iterator[tuple[Ints, Found]]:
        """Predictions of the samples `members`, batch by batch."""
        statistics = Statistics(values=self.card.normalization or {})
        prepare = self.kind.prepare(
            spec, self.inputs, self.sought, statistics, self.device, False, len(opened.samples)
        )
        ragged = self.kind.parts(opened.samples, self.inputs) is not None
        number = assemble.choose_precision(self.model, self.device, "auto", ragged)
        samples = opened.samples.only(members)
        yield from predictions(self.model, self.task, prepare, number, samples, spec.data.threads)
        if isinstance(prepare, Watchful):
            self.warnings.extend(prepare.warnings())


def scored_part(opened: Opened) -> tuple[Ints, list[str]]:
    """The samples to score: those that the data call a test, where they do, else all."""
    if opened.split is None:
        return opened.members, []
    codes, names = opened.split
    wanted = [k for k, name in enumerate(names) if name.lower() in TEST]
    chosen = opened.members[np.isin(codes[opened.members], wanted)]
    if not len(chosen):
        return opened.members, []
    return chosen, [_("Scored are the {count} samples that the data call a test.").format(count=len(chosen))]


def write_predictions(model: SetModel, opened: Opened, spec: RunSpec, out: Path) -> int:
    """Write a row for each sample: its file and number, what is predicted, and how likely each class is.

    CSV, or Parquet where `out` ends so. Gives the number of rows.

    Raises:
        UsageError: predictions of steps or nodes do not go into a table of samples.
        DiskFull: no space; nothing is left under the output's name.
    """
    if model.sought.per_row:
        raise UsageError(
            _("This model predicts every step or node, which is no table of samples."),
            _("Use `caudal evaluate` to score it."),
        )
    header = _header(model.sought)
    rows = _rows(model, opened, spec)
    written = 0

    def write(part: Path) -> None:
        nonlocal written
        if out.suffix == ".parquet":
            written = _write_parquet(part, header, rows)
            return
        with part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(header)
            for row in rows:
                writer.writerow([f"{v:.6g}" if isinstance(v, float) else v for v in row])
                written += 1

    write_whole(out, write)
    return written


def _header(sought: Sought) -> list[str]:
    if sought.kind == "regression":
        return ["file", "sample", *sought.names]
    return ["file", "sample", "predicted", *(f"p_{name}" for name in sought.names)]


def _rows(model: SetModel, opened: Opened, spec: RunSpec) -> Iterator[list[Any]]:
    sought, names = model.sought, opened.samples.columns.names
    target = getattr(model.task, "target", None)
    thresholds = (target.thresholds if target else ()) or (0.5,) * max(1, sought.outputs)
    for numbers, (found, _truth) in model.each(opened, spec, opened.members):
        if sought.kind == "binary" and found.shape[1] == 1:
            found = np.concatenate([1 - found, found], 1)
        for number, values in zip(numbers.tolist(), found.tolist(), strict=True):
            file, within = opened.samples.where(number)
            row: list[Any] = [names[file], within]
            if sought.kind == "multilabel":
                called = zip(sought.names, values, thresholds, strict=True)
                row.append(" ".join(name for name, p, least in called if p >= least))
            elif sought.kind == "binary":
                row.append(sought.names[int(values[1] >= thresholds[0])])
            elif sought.kind == "multiclass":
                row.append(sought.names[int(np.argmax(values))])
            yield [*row, *values]


def _write_parquet(part: Path, header: list[str], rows: Iterator[list[Any]]) -> int:
    try:
        pa, pq = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ModuleNotFoundError:
        raise UsageError(
            _("Parquet needs pyarrow, which is not installed."),
            _("Install it with `pip install caudal[tables]`, or write a .csv."),
        ) from None
    writer, held, total = None, list[list[Any]](), 0

    def flush() -> None:
        nonlocal writer
        table = pa.table({name: [row[k] for row in held] for k, name in enumerate(header)})
        writer = writer or pq.ParquetWriter(part, table.schema)
        writer.write_table(table)
        held.clear()

    for row in rows:
        held.append(row)
        total += 1
        if len(held) >= 1 << 16:
            flush()
    if held or writer is None:
        flush()
    assert writer is not None
    writer.close()
    return total

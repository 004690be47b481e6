"""A trained model of samples, ready to score others of their kind, or to say what it sees in them."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from caudal.core.errors import DataError
from caudal.core.messages import _
from caudal.core.units import Bytes
from caudal.data.batches import Batch
from caudal.data.sample_files.base import Ints
from caudal.data.sample_set import SampleSet
from caudal.data.sample_split import TEST
from caudal.data.sample_table import LABEL_COLUMNS
from caudal.data.sample_values import field_of
from caudal.memory import allocator, margin, planner, vram
from caudal.memory.meters import PeakMeter, charged_bytes
from caudal.models import weights
from caudal.runs import assemble
from caudal.runs.inference_margin import InferenceMargin
from caudal.runs.machine import processors, settle
from caudal.runs.spec import DataSettings, ModelSettings, RunSpec
from caudal.runs.work.kind import Inputs, Kind, SampleTask, Statistics, Watchful
from caudal.runs.work.open_samples import KINDS, Opened, open_samples
from caudal.runs.work.set_scores import Found, predictions
from caudal.runs.work.set_stream import REHEARSED, least_ram, scored_at_once
from caudal.runs.work.sought import Sought
from caudal.runs.work.told_classes import Strangers, refuse_others, told_by, without_truth
from caudal.runs.work.truths_of_rows import check_rows
from caudal.training.retry import naming_want_of_memory, ran_out

_AT_LEAST, _QUICK_SECONDS, _MOST_SECONDS = 8, 0.5, 2.0  # batches of many sizes in a rehearsal
_WORK_BYTES = 3  # times a batch of the largest samples: what a model holds beside it, roughly


@dataclass
class SetModel:
    """See `load`. `vram` is the budget of the device, `None` without one; `predicted_vram` the peak there.

    `at_once` samples go through the model together; 0: as many as are usual.
    """

    model: nn.Module
    card: weights.ModelCard
    kind: Kind
    inputs: Inputs
    sought: Sought
    task: SampleTask
    device: str
    warnings: list[str] = field(default_factory=list)
    vram: Bytes | None = None
    predicted_vram: Bytes = field(default_factory=Bytes)
    at_once: int = 0
    told: Sought = field(init=False)
    """What was learned, as the samples that were opened say it; where they do not, it has no field."""
    strangers: Strangers | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        """Nothing is opened yet."""
        self.told = without_truth(self.sought)

    @classmethod
    def load(cls, path: Path, device: str, on_card: Bytes | None = None) -> SetModel:
        """A run's or a model's folder. On a device it may hold `on_card`, or a share of what is free there.

        Raises:
            BadModel: there is no model that may be opened.
            DeviceMissing: `device` is not here.
            UsageError: the device has less than `on_card`.
        """
        settle()
        torch.set_num_threads(processors())
        where = vram.choose(device)
        budget = vram.allowed_on(where, on_card)
        model, card = weights.load(path / "model" if (path / "model").is_dir() else path)
        assemble.limit_threads(model, where)
        assert card.inputs is not None
        kind: Kind = KINDS.get(card.task)()
        sought = Sought.model_validate(card.classes)
        spec = RunSpec(task=card.task, data=DataSettings(images=("-",)))
        task = kind.make_task(spec, sought, None, card.inputs["chosen"])
        inputs = Inputs.model_validate(card.inputs["inputs"])
        with naming_want_of_memory(_("loading the model")):
            model = model.to(where)
        return cls(model, card, kind, inputs, sought, task, where, vram=budget)

    def open(
        self, data: str, labels: str | None, tick: Callable[[int, int], None], truth: bool = True
    ) -> tuple[Opened, RunSpec]:
        """Samples of the kind that the model was trained on, and with `truth` what they say themselves.

        Raises:
            DataError: they have other fields, another number of features, or truths of another form.
            BadValues: truths of steps or nodes of which there are not as many as there are of these.
        """
        assert self.card.inputs is not None
        stored = DataSettings.model_validate(self.card.inputs["data"])
        settings = stored.model_copy(update={"images": (data,), "labels": labels})
        built = ModelSettings(name=self.card.architecture, config=self.card.config)
        spec = RunSpec(task=self.card.task, data=settings, model=built)
        opened = open_samples(spec, tick)
        one = field_of(opened.samples, self._told_in(opened)) if truth else None
        besides = frozenset({self.sought.field, *opened.columns, "split", *([one.name] if one else [])})
        found = self.kind.inputs(opened.samples, besides)
        if not self.inputs.fits(found):
            raise DataError(
                _("{path} holds {found}, and the model was trained on {wanted}.").format(
                    path=data, found=found.shape, wanted=self.inputs.shape
                ),
                _("Use samples with the same fields and features."),
            )
        if self.inputs.steps and found.steps and self.inputs.steps != found.steps:
            self.warnings.append(
                _("{path} holds {found}, and the model was trained on {wanted}.").format(
                    path=data, found=found.shape, wanted=self.inputs.shape
                )
            )
        self.told = without_truth(self.sought) if one is None else told_by(self.sought, one, data)
        if one is not None and self.told.per_row:
            check_rows(opened.samples, found, one)
        return opened, spec

    def _told_in(self, opened: Opened) -> str:
        """The field that says what was learned: a table's own, where it calls it by another usual name."""
        if self.sought.field in opened.columns or not opened.columns:
            return self.sought.field
        usual = (name for name in opened.columns if name.lower() in LABEL_COLUMNS)
        return next(usual, self.sought.field)

    def refuse_others(self, opened: Opened) -> None:
        """Raise where no class that samples name is one that the model learned.

        Raises:
            DataError: so it is.
        """
        one = field_of(opened.samples, self.told.field)
        if one is not None:
            refuse_others(self.told, one, opened.samples.root)

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

    @cached_property
    def margin(self) -> InferenceMargin:
        """What predictions with a model like this have taught."""
        return InferenceMargin.of(self.card, self.device)

    def check(self, opened: Opened, spec: RunSpec, budget: Bytes) -> Bytes:
        """What it will take, as a few batches of the largest samples really do.

        On a device fewer go through the model at once where the usual number finds no room.

        Raises:
            DoesNotFit: more than the budget, or one sample is more than the device's.
        """
        self.roughly(opened.samples, budget)
        meter, said = PeakMeter(), list(self.warnings)
        self.at_once = scored_at_once(opened.samples)
        while not self._has_room(opened, spec):
            assert self.vram is not None
            if self.at_once == 1:
                planner.refuse_above(self.vram, Bytes(max(self.vram + 1, self.predicted_vram)), "vram")
            self.at_once //= 2
        self.warnings[:] = said  # what it met is met again
        needed = self.margin.beyond(meter.peak())
        planner.refuse_above(budget, needed)
        return needed

    def _has_room(self, opened: Opened, spec: RunSpec) -> bool:
        """Score a few batches; whether the device had room for them, which the host tells otherwise."""
        # The last batch is of another size, for which kernels of its own are made and kept.
        last = len(opened.samples) % self.at_once
        ragged = self.kind.parts(opened.samples, self.inputs) is not None
        vram.trim()
        vram.reset_peak()
        try:
            with allocator.apart():
                self._score(opened, spec, self._largest(opened, self.at_once + last))
            allocator.trim()
            began = time.monotonic()
            self._score(opened, spec, self._largest(opened, REHEARSED * self.at_once + last))
            if ragged:  # batches of other sizes cut up what these leave in the heap
                self._score(opened, spec, opened.members, began)
        except RuntimeError as error:
            if self.vram is None or not ran_out(error):
                raise
            return False
        if self.vram is None:
            return True
        self.predicted_vram = Bytes((vram.peak_since_reset() or 0) * (1 + margin.FIRST))
        return self.predicted_vram <= self.vram

    def _largest(self, opened: Opened, count: int) -> Ints:
        return self.kind.largest(opened.used, self.inputs, count)

    def _score(self, opened: Opened, spec: RunSpec, members: Ints, since: float | None = None) -> None:
        """Score samples and forget it; given `since` when, as many as take little time."""
        with closing(self.each(opened, spec, members)) as scored:
            for number, _found in enumerate(scored, 1):
                seconds = 0.0 if since is None else time.monotonic() - since
                if seconds > _MOST_SECONDS or (seconds > _QUICK_SECONDS and number >= _AT_LEAST):
                    break

    def each(self, opened: Opened, spec: RunSpec, members: Ints) -> Generator[tuple[Ints, Found]]:
        """Predictions of the samples `members`, batch by batch.

        `strangers` then are the truths among them that are none of the model's classes.
        """
        prepare = self.prepare(opened, spec)
        ragged = self.kind.parts(opened.samples, self.inputs) is not None
        number = assemble.choose_precision(self.model, self.device, "auto", ragged)
        strangers = Strangers(self.told, field_of(opened.samples, self.told.field))
        self.strangers = strangers

        def watched(batch: Batch, part: slice) -> Any:
            strangers.look(batch)
            return prepare(batch, part)

        samples = opened.samples.only(members)
        threads = spec.data.threads
        yield from predictions(self.model, self.task, watched, number, samples, threads, self.at_once)
        self.warnings.extend(strangers.warnings())
        if isinstance(prepare, Watchful):
            self.warnings.extend(prepare.warnings())

    def prepare(self, opened: Opened, spec: RunSpec) -> Callable[[Batch, slice], tuple[Any, Any]]:
        """From a part of a batch to input and truth, as the model learned them."""
        statistics = Statistics(values=self.card.normalization or {})
        return self.kind.prepare(spec, self.inputs, self.told, statistics, self.device, False, opened.samples)


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

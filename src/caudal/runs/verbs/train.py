"""`train`: from a plan to a model, inside the plan. An unfinished run goes on where it stopped."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import nn

from caudal.core.errors import UsageError
from caudal.core.events import (
    Events,
    JsonLines,
    Sink,
)
from caudal.core.messages import _
from caudal.core.units import Bytes
from caudal.data.paths import local_path
from caudal.memory import allocator, margin, vram
from caudal.memory.budget import Budget
from caudal.memory.meters import Watch
from caudal.memory.vram import choose as choose_device
from caudal.models import weights
from caudal.runs import assemble
from caudal.runs.account import Account
from caudal.runs.folder import RunFolder
from caudal.runs.machine import follows, processes_here, ram_budget, settle
from caudal.runs.plan import TrainPlan, stored_plan
from caudal.runs.relief import governed
from caudal.runs.result import Result
from caudal.runs.spec import RunSpec
from caudal.runs.tensorboard import Curves
from caudal.runs.verbs.plan import make_spec, open_work, plan_spec, resolve
from caudal.runs.verbs.report import report
from caudal.runs.watched import seconds_left, watcher_bytes
from caudal.runs.work.base import Course, Work
from caudal.tasks.base import Metrics
from caudal.training import checkpoint, precision
from caudal.training.checkpoint import Progress
from caudal.training.distributed import Ranks, joined
from caudal.training.loop import Loop
from caudal.training.stages import Stages
from caudal.training.stop import Stop


def train(
    what: TrainPlan | RunSpec | str,
    data: str | Path | Sequence[str | Path] = (),
    *,
    out: str | Path,
    masks: str | Path | Sequence[str | Path] = (),
    labels: str | Path | None = None,
    ram: str | int | None = None,
    vram: str | int | None = None,
    device: str | None = None,
    seed: int | None = None,
    listeners: Sequence[Sink] = (),
    stop: threading.Event | None = None,
) -> Result:
    """Train what a plan, a spec, or a task with its data says, into the folder `out`.

    An unfinished run in `out` goes on from its last checkpoint. `stop` ends it early, with a checkpoint.
    Under `torchrun` all processes train one model: each takes its share of every batch and of the budget,
    and the first writes.

    Raises:
        DoesNotFit, DataError, DeviceMissing, UsageError: as `plan`.
        BadValues: no class or no valid pixel to learn from.
        Interrupted: `stop` was set; the run can go on.
        DiskFull: no space for a checkpoint; the earlier ones are there.
    """
    folder = RunFolder(local_path(str(out), must_exist=False))
    planned: TrainPlan | None = None
    if isinstance(what, TrainPlan):
        planned, wanted = what, what.device
    else:
        spec = what if isinstance(what, RunSpec) else make_spec(what, data, masks, labels)
        wanted = choose_device(device or spec.device)
        if not follows():
            planned = resolve(out, spec, ram=ram, vram=vram, device=device, seed=seed)
    stop = stop or threading.Event()
    with joined(wanted) as ranks, ExitStack() as stack:
        made = ranks.told(_together(planned, ranks.count) if planned else None)
        again = ranks.first and folder.begin(made.asked)
        earlier = stored_plan(folder.plan) if again else None
        if ranks.first:
            stack.enter_context(folder.lock())
            folder.write_json(folder.plan, made.model_dump(mode="json"))
        again = ranks.told(again)
        return _Training(made, folder, again, listeners if ranks.first else (), stop, ranks).run(earlier)


def _together(made: TrainPlan, count: int) -> TrainPlan:
    """The plan of each of `count` processes: each keeps its share of the budget.

    Raises:
        DoesNotFit: a plan that one process made is too large, and there is no smaller one.
        UsageError: a batch cannot be dealt out evenly.
    """
    if count == 1:
        return made
    batch = made.spec.training.batch
    if batch % count:
        raise UsageError(
            _("A batch of {batch} samples cannot be dealt out evenly to {count} processes.").format(
                batch=batch, count=count
            ),
            _("Set training.batch to a multiple of their number."),
        )
    if made.memory.ram > ram_budget(made.asked.ram) // processes_here():
        made = plan_spec(made.asked)  # it was made for one process
    note = _("{count} processes train together, each within {share}.").format(
        count=count, share=made.memory.ram
    )
    warnings = made.warnings if note in made.warnings else (*made.warnings, note)
    return made.model_copy(update={"warnings": warnings})


class _Training:
    """One call of `train`: owns the events, the meters and the objects of a run."""

    def __init__(
        self,
        made: TrainPlan,
        folder: RunFolder,
        again: bool,
        listeners: Sequence[Sink],
        stop: threading.Event,
        ranks: Ranks,
    ) -> None:
        self.plan, self.folder, self.again, self.stop = made, folder, again, Stop(stop)
        self.ranks = ranks
        self.spec = made.spec
        self.events = Events(*listeners)
        self.account = Account(made, folder, self.events)
        self.budget = Budget(made.memory.ram)

    def run(self, earlier: TrainPlan | None) -> Result:
        """Train, score, store, report; the outcome is an event whatever it is.

        `earlier` is the plan with which the run began, where it goes on.
        """
        settle()
        torch.set_num_threads(self.plan.compute_threads)
        with ExitStack() as stack:
            if self.ranks.first:
                log = JsonLines(self.folder.events)
                stack.callback(log.close)
                curves = Curves(self.folder.tensorboard)
                stack.callback(curves.close)
                for sink in (log, curves):
                    self.events.listen(sink)
            watch = stack.enter_context(Watch(listen=self.account.memory, beside=watcher_bytes()))
            self.watch = self.account.watch = watch
            stack.enter_context(self.stop.after(seconds_left()))
            try:
                metrics = self._train(earlier)
            except BaseException as error:
                self.account.failed(error, watch.peak)
                raise
            result = self.account.succeeded(metrics, watch.peak)
            # What an earlier process held, nobody has seen to its end; nor what the other processes hold.
            if not self.again and self.ranks.count == 1:
                self._learn(watch.peak)
        if self.ranks.first:
            self.folder.write_json(self.folder.result, result.model_dump(mode="json", exclude_none=True))
            report(self.folder.path)
        return result

    def _learn(self, peak: Bytes) -> None:
        """Keep what came of the predictions, for the margins of the next plan."""
        memory, kind = self.plan.memory, self.plan.kind
        margin.note(kind, int(memory.predicted("ram") / (1 + self.plan.margin)), int(peak))
        on_device = vram.peak()
        if memory.vram and on_device is not None:
            predicted = memory.predicted("vram") / (1 + self.plan.margin_vram)
            margin.note(margin.on_device(kind), int(predicted), int(on_device))

    def _train(self, earlier: TrainPlan | None) -> Metrics:
        work = open_work(self.spec)
        for text in self.plan.warnings:
            self.account.warn(text)
        self.account.earlier_ends()
        self.account.replanned(earlier)
        course = self._started(work)
        allocator.trim()  # what looking at the data left in the heap
        for text in course.warnings:
            self.account.warn(text)
        number = precision.choose(self.plan.device, self.plan.precision)
        if self.plan.device == "cuda" and self.plan.memory.vram:
            vram.cap(self.plan.memory.vram)
        for holder in self.plan.memory.holders:
            if holder.pool == "ram":
                self.budget.lease(holder.name, holder.bytes)
        self._steps(course, number, work.facts.samples_per_epoch)
        return self.ranks.told_by(lambda: self._scored(course, number))

    def _started(self, work: Work) -> Course:
        """What the data are looked at for; the first process looks, and writes what the others read.

        Raises:
            UsageError: this task is learned by one process alone.
        """
        course = work.start(self.plan, self.folder, self.again, self.events) if self.ranks.first else None
        self.ranks.told(True)  # the others wait until it is written
        course = course or work.start(self.plan, self.folder, True, self.events)
        if self.ranks.count > 1 and not course.takes_ranks:
            raise UsageError(
                _("The task {task} is trained by one process alone.").format(task=self.spec.task),
                _("Run it without torchrun."),
            )
        return course

    def _scored(self, course: Course, number: precision.Precision) -> Metrics:
        """Figures of the best model on what was held out, which are stored with it."""
        # All held-out data are scored with what training held given back.
        allocator.trim()
        vram.trim()
        best, _card = weights.load(self.folder.model)
        metrics, warnings = course.score(best, number, self.folder.path)
        for text in warnings:
            self.account.warn(text)
        weights.save(self.folder.model, best, course.card(best, metrics))
        return metrics

    def _steps(self, course: Course, number: precision.Precision, samples_per_epoch: int) -> None:
        """From the last checkpoint to the end; the best model is in the folder then."""
        model = course.make_model()
        for text in getattr(model, "notes", ()):
            self.account.warn(text)
        if not checkpoint.found(self.folder.checkpoints) and course.fit(model):
            weights.save(self.folder.model, model, course.card(model, {}))
            return
        point = self.plan.point
        assemble.make_thrifty(model, point.heap, point.recompute)
        stepper, average = assemble.make_stepper(
            self.spec,
            course.task,
            model,
            course.prepare(),
            course.parts,
            number,
            point.micro_batch,
            self.folder.path if point.optimizer else None,
        )
        stepper.shrunk, stepper.held, stepper.ranks = self.account.shrunk, self.account.held, self.ranks
        progress = Progress()
        found = checkpoint.found(self.folder.checkpoints)
        if found:
            progress = checkpoint.load(found[-1], model, average.model, stepper.optimizer)
            stepper.scaler.load_state_dict(progress.scaler)

        def keep_best(best: nn.Module, metrics: Metrics) -> None:
            weights.save(self.folder.model, best, course.card(best, metrics))

        self.account.started(progress.step)
        loop = Loop(
            settings=self.spec.training,
            stepper=stepper,
            average=average,
            progress=progress,
            checkpoints=self.folder.checkpoints,
            events=self.events,
            headline=course.task.headline,
            validate=lambda scored: course.validate(scored, number),
            keep_best=keep_best,
            samples_per_epoch=samples_per_epoch,
            stop=self.stop,
            stages=Stages(model, int(self.spec.training.head_first * self.spec.training.steps)),
            ranks=self.ranks,
        )
        if progress.stopped or progress.step >= self.spec.training.steps:
            return
        with (
            course.batches(progress.step) as batches,
            governed(loop, self.plan.memory, self.watch, self.events),
        ):
            loop.run(batches)

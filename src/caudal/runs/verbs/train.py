"""`train`: from a plan to a model, inside the plan. An unfinished run goes on where it stopped."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import nn

from caudal.core.events import (
    Events,
    JsonLines,
    Sink,
)
from caudal.data.index import Index
from caudal.data.paths import local_path
from caudal.data.stream import PatchStream
from caudal.inference.forward import Forward
from caudal.memory import allocator, margin, vram
from caudal.memory.arena import Arena
from caudal.memory.budget import Budget
from caudal.memory.governor import Governor
from caudal.memory.meters import Watch
from caudal.models import weights
from caudal.models.fold import folded
from caudal.runs import assemble
from caudal.runs.account import Account
from caudal.runs.folder import RunFolder
from caudal.runs.machine import settle
from caudal.runs.plan import TrainPlan
from caudal.runs.relief import rungs_of
from caudal.runs.result import Result
from caudal.runs.scoring import choose_views, score_images, score_views
from caudal.runs.spec import RunSpec
from caudal.runs.survey import Survey, survey
from caudal.runs.tensorboard import Curves
from caudal.runs.tiling import validation_tiling
from caudal.runs.verbs.plan import make_cutter, make_spec, open_data, resolve
from caudal.runs.verbs.report import report
from caudal.runs.watched import seconds_left, watcher_bytes
from caudal.tasks.base import Metrics
from caudal.training import checkpoint, precision
from caudal.training.checkpoint import Progress
from caudal.training.loop import Loop
from caudal.training.stop import Stop

# Scoring while training goes on may take this share of the training's own work.
_VALIDATION_SHARE = 0.1
_FORWARDS_A_STEP = 3  # forward, and backward twice as long


def train(
    what: TrainPlan | RunSpec | str,
    data: str | Path | Sequence[str | Path] = (),
    *,
    out: str | Path,
    masks: str | Path | Sequence[str | Path] = (),
    ram: str | int | None = None,
    vram: str | int | None = None,
    device: str | None = None,
    seed: int | None = None,
    listeners: Sequence[Sink] = (),
    stop: threading.Event | None = None,
) -> Result:
    """Train what a plan, a spec, or a task with its data says, into the folder `out`.

    An unfinished run in `out` goes on from its last checkpoint. `stop` ends it early, with a checkpoint.

    Raises:
        DoesNotFit, DataError, DeviceMissing, UsageError: as `plan`.
        BadValues: no class or no valid pixel to learn from.
        Interrupted: `stop` was set; the run can go on.
        DiskFull: no space for a checkpoint; the earlier ones are there.
    """
    folder = RunFolder(local_path(str(out), must_exist=False))
    if isinstance(what, TrainPlan):
        made = what
    else:
        spec = what if isinstance(what, RunSpec) else make_spec(what, data, masks)
        made = resolve(out, spec, ram=ram, vram=vram, device=device, seed=seed)
    again = folder.begin(made.spec)
    with folder.lock():
        folder.write_json(folder.plan, made.model_dump(mode="json"))
        return _Training(made, folder, again, listeners, stop or threading.Event()).run()


class _Training:
    """One call of `train`: owns the events, the meters and the objects of a run."""

    def __init__(
        self,
        made: TrainPlan,
        folder: RunFolder,
        again: bool,
        listeners: Sequence[Sink],
        stop: threading.Event,
    ) -> None:
        self.plan, self.folder, self.again, self.stop = made, folder, again, Stop(stop)
        self.spec = made.spec
        self.events = Events(*listeners)
        self.account = Account(made, folder, self.events)
        self.budget = Budget(made.memory.ram)

    def run(self) -> Result:
        """Train, score, store, report; the outcome is an event whatever it is."""
        settle()
        torch.set_num_threads(self.plan.compute_threads)
        with ExitStack() as stack:
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
                metrics = self._train()
            except BaseException as error:
                self.account.failed(error, watch.peak)
                raise
            result = self.account.succeeded(metrics, watch.peak)
            if not self.again:  # what an earlier process held, nobody has seen to its end
                predicted = self.plan.memory.predicted("ram") / (1 + self.plan.margin)
                margin.note(self.plan.kind, int(predicted), int(watch.peak))
        self.folder.write_json(self.folder.result, result.model_dump(mode="json", exclude_none=True))
        report(self.folder.path)
        return result

    def _train(self) -> Metrics:
        index, parts = open_data(self.spec)
        for text in (*self.plan.warnings,):
            self.account.warn(text)
        self.account.earlier_ends()
        facts = survey(self.plan, self.folder, self.again, index, parts, self.events)
        for text in facts.warnings:
            self.account.warn(text)
        names = assemble.class_names(facts.classes)
        task = assemble.make_task(self.spec, names)
        number = precision.choose(self.plan.device, self.spec.training.precision)
        if self.plan.device == "cuda" and self.plan.memory.vram:
            vram.cap(self.plan.memory.vram)
        for holder in self.plan.memory.holders:
            if holder.pool == "ram":
                self.budget.lease(holder.name, holder.bytes)
        model = assemble.make_model(self.spec, index.bands, task.outputs(), self.plan.device)
        assemble.make_thrifty(model, self.plan.thrift)
        stepper, average = assemble.make_stepper(
            self.spec, task, model, facts.normalization, number, self.plan.micro_batch
        )
        stepper.shrunk = self.account.shrunk
        progress = Progress()
        found = checkpoint.found(self.folder.checkpoints)
        if found:
            progress = checkpoint.load(found[-1], model, average.model, stepper.optimizer)
            stepper.scaler.load_state_dict(progress.scaler)
        reader = facts.reader(index)

        def forwards_of(scored: nn.Module) -> Any:
            ready = folded(scored)

            def forward(layout: int) -> Forward:
                return Forward(
                    ready, task.probabilities, facts.normalization, layout, self.plan.device, number.autocast
                )

            return forward

        work_px = self.spec.training.steps * self.spec.training.batch * self.plan.patch_px**2
        share = _VALIDATION_SHARE * _FORWARDS_A_STEP * self.spec.training.validation_steps
        views = choose_views(
            index, parts.held_out, int(work_px * share / self.spec.training.steps), self.spec.seed
        )
        tiling = validation_tiling(model)

        def validate(scored: nn.Module) -> Metrics:
            scorer = task.scorer()
            score_views(index, views, reader, forwards_of(scored), tiling, task.outputs(), scorer)
            return scorer.result()

        def keep_best(best: nn.Module, metrics: Metrics) -> None:
            weights.save(self.folder.model, best, self._card(index, facts, task.outputs(), metrics))

        self.account.started(progress.step)
        cutter = make_cutter(self.spec, index, parts, self.plan.patch_px)
        loop = Loop(
            settings=self.spec.training,
            stepper=stepper,
            average=average,
            progress=progress,
            checkpoints=self.folder.checkpoints,
            events=self.events,
            headline=task.headline,
            validate=validate,
            keep_best=keep_best,
            samples_per_epoch=cutter.samples,
            stop=self.stop,
        )
        if not progress.stopped and progress.step < self.spec.training.steps:
            arena = Arena(self.plan.arena)
            with PatchStream(
                cutter,
                reader,
                arena,
                batch=self.spec.training.batch,
                open_chunks=self.plan.open_chunks,
                threads=self.spec.data.threads,
                start=progress.step,
                stop=self.spec.training.steps,
                overlap=self.plan.device != "cpu",
            ) as stream:
                governor = Governor(
                    self.plan.memory.ram,
                    rungs_of(loop, self.plan.memory.ram, self.watch.now),
                    self.events,
                )
                self.watch.governor = governor
                try:
                    loop.run(stream)
                finally:
                    self.watch.governor = None
                    governor.close(self.watch.now())
            del arena, stream, governor
        # Whole images are scored with what training held given back.
        del loop, stepper, average, model
        allocator.trim()
        best, card = weights.load(self.folder.model)
        scorer = task.scorer()
        reader = facts.reader(index)
        score_images(
            index, parts.held_out, reader, forwards_of(best), tiling, task.outputs(), scorer, self.folder.path
        )
        reader.files.close()
        metrics = scorer.result()
        for text in scorer.warnings():
            self.account.warn(text)
        weights.save(self.folder.model, best, card.model_copy(update={"metrics": metrics}))
        return metrics

    def _card(self, index: Index, facts: Survey, outputs: int, metrics: Metrics) -> weights.ModelCard:
        model = weights.build(self.spec.model.name, index.bands, outputs, self.spec.model.config)
        return weights.ModelCard(
            task=self.spec.task,
            architecture=self.spec.model.name,
            config=model.config.model_dump(mode="json"),  # type: ignore[union-attr, operator]
            bands=index.bands,
            outputs=outputs,
            band_names=index.band_names,
            normalization=facts.normalization.model_dump(mode="json"),
            classes=facts.classes.model_dump(mode="json"),
            memory={
                "device": self.plan.device,
                "forwards": [f.model_dump(mode="json") for f in self.plan.probe.forwards],
            },
            metrics=metrics,
        )

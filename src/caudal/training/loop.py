"""The loop: steps, scores, checkpoints, and when to stop. The same for every task."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from caudal.core.errors import OutOfMemory
from caudal.core.events import Events, StepDone, Validated
from caudal.core.messages import _
from caudal.memory import allocator, vram
from caudal.tasks.base import Metrics
from caudal.training import checkpoint
from caudal.training.average import Average
from caudal.training.checkpoint import Progress
from caudal.training.distributed import ALONE, Ranks
from caudal.training.retry import naming_want_of_memory
from caudal.training.schedule import learning_rate
from caudal.training.settings import TrainingSettings
from caudal.training.stages import Stages
from caudal.training.step import StepBatch, Stepper
from caudal.training.stop import Stop


@dataclass
class Loop:
    """A run in progress.

    `validate` scores a model on the held-out part; `keep_best` stores a model that scored best;
    `samples_per_epoch` is used to count epochs alone. Of several processes (`ranks`) the first scores and
    writes; all stop together.
    """

    settings: TrainingSettings
    stepper: Stepper
    average: Average
    progress: Progress
    checkpoints: Path
    events: Events
    headline: str
    validate: Callable[[nn.Module], Metrics]
    keep_best: Callable[[nn.Module, Metrics], None]
    samples_per_epoch: int
    stop: Stop
    stages: Stages
    ranks: Ranks = ALONE

    def __post_init__(self) -> None:
        self._has_scored = False

    def run(self, batches: Iterable[StepBatch]) -> Progress:
        """Train from `progress.step` to the end, over `batches` that begin at that step.

        Raises:
            Interrupted, or what `stop` was asked with; the checkpoint is on disk.
            OutOfMemory: a step finds no room, however small its parts, or scoring finds none; the checkpoint
                is on disk. If it was an update that found none, it is the last one before.
            Diverged: a loss or a gradient is no finite number; the checkpoints from before are there.
            DiskFull: a checkpoint could not be written; the earlier ones are there.
        """
        saved_at = time.monotonic()
        for batch in batches:
            try:
                self._step(batch)
            except OutOfMemory as error:
                if not error.facts.get("half_done"):
                    self.save()  # the state is that before the step
                raise
            done = self.progress.step
            if done % self.settings.validation_steps == 0 or done == self.settings.steps:
                try:
                    self._validate(done)
                except OutOfMemory:
                    self.save()
                    raise
            if self._checkpoint_due(done, saved_at):
                self.save()
                saved_at = time.monotonic()
            if self.ranks.any(self.stop.is_set()):
                self.save()
                raise self.stop.error(done, self.settings.steps)
            if self.progress.stopped:
                break
        self.save()
        return self.progress

    def save(self) -> None:
        """Write a checkpoint of where the run stands."""
        if not self.ranks.first:
            return
        self.progress.scaler = self.stepper.scaler.state_dict()
        self.events(
            checkpoint.save(
                self.checkpoints,
                self.progress,
                self.stepper.model,
                self.average.model,
                self.stepper.optimizer,
            )
        )

    def _step(self, batch: StepBatch) -> None:
        began = time.perf_counter()
        step = self.progress.step
        self.stages.begin(step)
        rate = learning_rate(step, self.settings.steps, self.settings.learning_rate, self.settings.warm_up)
        loss = self.stepper.run(batch, rate, step)
        self.average.update(self.stepper.model, step)
        self.progress.step = step + 1
        self.events(
            StepDone(
                step=step + 1,
                epoch=(step + 1) * self.settings.batch // self.samples_per_epoch,
                loss=loss,
                learning_rate=rate,
                samples=batch.size * self.ranks.count,
                step_seconds=time.perf_counter() - began + batch.stall_seconds,
                stall_seconds=batch.stall_seconds,
            )
        )

    def _scored(self) -> Metrics:
        first, self._has_scored = not self._has_scored, True
        with allocator.apart(first), naming_want_of_memory(_("scoring the held-out part")):
            return self.validate(self.average.model)

    def _validate(self, step: int) -> None:
        # What steps keep lies in blocks of their sizes, and so does what scoring keeps; once an interval this
        # costs next to nothing.
        vram.trim()
        metrics = self.ranks.told_by(self._scored)
        vram.trim()
        score = metrics.get(self.headline)
        best = self.progress.best
        # Of equals the later one: a small held-out part soon has nothing more to say.
        better = score is not None and (best is None or score >= best)
        ahead = score is not None and (best is None or score > best)
        # Until something can be scored there is no best model, but there must be one.
        kept = better or self.progress.best is None or self.settings.keep == "last"
        if kept and self.ranks.first:
            self.keep_best(self.average.model, metrics)
        if better:
            self.progress.best, self.progress.best_step = score, step
        self.progress.waited = 0 if ahead else self.progress.waited + 1
        self.progress.history.append({"step": step, **metrics})
        epoch = math.ceil(step * self.settings.batch / self.samples_per_epoch)
        self.events(Validated(step=step, epoch=epoch, metrics=metrics, best=better))
        self.progress.stopped = 0 < self.settings.patience <= self.progress.waited

    def _checkpoint_due(self, step: int, saved_at: float) -> bool:
        if self.settings.checkpoint_steps:
            return step % self.settings.checkpoint_steps == 0
        return time.monotonic() - saved_at >= self.settings.checkpoint_seconds

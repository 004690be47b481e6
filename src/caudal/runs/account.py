"""What a training run tells: events on the way, how it ended, and the result that the next table shows."""

from __future__ import annotations

import time

from caudal.core.errors import CaudalError, Interrupted, TimeIsUp
from caudal.core.events import (
    Event,
    Events,
    MemoryRead,
    MemoryRelieved,
    RunEnded,
    RunKilled,
    RunStarted,
    SampleBroken,
    StepDone,
    Warned,
    read,
)
from caudal.core.messages import _
from caudal.core.units import Bytes
from caudal.data.broken import told
from caudal.memory import vram
from caudal.memory.meters import Watch
from caudal.runs.acts import in_words
from caudal.runs.folder import RunFolder
from caudal.runs.plan import TrainPlan
from caudal.runs.result import Result
from caudal.tasks.base import Metrics


class Account:
    """Of one call of `train`; begins when it is made. `watch` reads what is held."""

    def __init__(self, plan: TrainPlan, folder: RunFolder, events: Events) -> None:
        self._plan, self._folder, self._events = plan, folder, events
        self._began = time.monotonic()
        self._warnings: list[str] = []
        self._broken: list[SampleBroken] = []
        self._samples, self._stalled_seconds, self._step_seconds = 0, 0.0, 0.0
        self.watch: Watch | None = None
        events.listen(self._count)

    def warn(self, text: str) -> None:
        """Tell something that the user should know, once."""
        if text not in self._warnings:
            self._warnings.append(text)
            self._events(Warned(text))

    def earlier_ends(self) -> None:
        """Warn of kills for memory that this run has behind it."""
        for ended in read(self._folder.events):
            if isinstance(ended, RunKilled) and ended.reason == "oom_host":
                peak = Bytes(ended.peak_bytes)
                self.warn(
                    _("It was killed for want of memory, when it held {peak}, and went on.").format(peak=peak)
                )

    def replanned(self, earlier: TrainPlan | None) -> None:
        """Tell which levers stand elsewhere than in the plan that the run began with."""
        if earlier is None:
            return
        before = {lever.name: lever.value for lever in earlier.memory.levers}
        changed = [
            f"{lever.name} {before[lever.name]} → {lever.value}"
            for lever in self._plan.memory.levers
            if before.get(lever.name, lever.value) != lever.value
        ]
        if changed:
            self.warn(_("It went on with another plan: {changes}.").format(changes=", ".join(changed)))

    def memory(self, charged: Bytes) -> None:
        """Tell a reading of the memory."""
        self._events(MemoryRead(ram=int(charged), vram=vram.charged()))

    def held(self) -> int:
        """Bytes that are held now where this run computes."""
        if self._plan.device == "cpu":
            return int(self.watch.now()) if self.watch else 0
        return int(vram.charged() or 0)

    def shrunk(self, micro_batch: int, after: int, held: int) -> None:
        """Tell that a step is taken again in smaller parts; see `training.step`."""
        pool = "ram" if self._plan.device == "cpu" else "vram"
        why = _("a step ran out of memory with {size} samples at once").format(size=micro_batch)
        act = _("the same step with {size} at a time").format(size=after)
        self._events(MemoryRelieved(act, why, pool, held, self.held()))

    def started(self, step: int) -> None:
        """Tell that steps begin, after `step` of them."""
        self._events(
            RunStarted(
                task=self._plan.spec.task,
                device=self._plan.device,
                step=step,
                total_steps=self._plan.spec.training.steps,
                predicted_bytes=self._plan.memory.predicted_bytes(),
                budget_bytes=self._plan.memory.budget_bytes(),
            )
        )

    def failed(self, error: BaseException, peak: Bytes) -> None:
        """Tell that it ended early, and why."""
        stopped = isinstance(error, Interrupted | TimeIsUp | KeyboardInterrupt)
        self._ended("interrupted" if stopped else "failed", peak, {}, str(error), _reason(error))

    def succeeded(self, metrics: Metrics, peak: Bytes) -> Result:
        """Tell that it ended well; the result."""
        for text in told(self._broken):
            self.warn(text)
        self._ended("succeeded", peak, metrics, "", "")
        rate, stall = self._rates()
        memory = self._plan.memory
        return Result(
            verb="train",
            run=str(self._folder.path),
            output=str(self._folder.model),
            metrics=metrics,
            budget_bytes=memory.budget_bytes(),
            predicted_bytes=memory.predicted_bytes(),
            peak_bytes={"ram": int(peak), "vram": int(vram.peak() or 0)},
            seconds=time.monotonic() - self._began,
            samples_per_second=rate,
            stall=stall,
            levers={lever.name: lever.value for lever in memory.levers},
            acts=tuple(words for event in read(self._folder.events) if (words := in_words(event))),
            warnings=tuple(self._warnings),
        )

    def _count(self, event: Event) -> None:
        if isinstance(event, StepDone):
            self._samples += event.samples
            self._stalled_seconds += event.stall_seconds
            self._step_seconds += event.step_seconds
        elif isinstance(event, SampleBroken):
            self._broken.append(event)

    def _rates(self) -> tuple[float | None, float | None]:
        """Samples a second, and the share of the steps' time that waited for data."""
        if not self._step_seconds:
            return None, None
        return self._samples / self._step_seconds, self._stalled_seconds / self._step_seconds

    def _ended(self, outcome: str, peak: Bytes, metrics: Metrics, error: str, reason: str) -> None:
        rate, stall = self._rates()
        self._events(
            RunEnded(
                outcome=outcome,
                seconds=time.monotonic() - self._began,
                samples_per_second=rate,
                stall=stall,
                peak_bytes={"ram": int(peak), "vram": int(vram.peak() or 0)},
                metrics=metrics,
                error=error,
                reason=reason,
            )
        )


def _reason(error: BaseException) -> str:
    """The name of an error: its code, or `error` for what is a fault of ours."""
    if isinstance(error, KeyboardInterrupt):
        return Interrupted.code
    return error.code if isinstance(error, CaudalError) else CaudalError.code

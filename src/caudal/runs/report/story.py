"""What happened in a run, read from its folder in one pass: records, nothing is drawn here.

Times are seconds in which the run was at work: pauses between an interruption and its resumption are cut
out. Steps that were done again after a resumption count once.
"""

from __future__ import annotations

import fcntl
from array import array
from bisect import bisect_right
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from caudal.core.events import (
    Event,
    MemoryRead,
    RunEnded,
    RunKilled,
    RunStarted,
    StepDone,
    Validated,
    Warned,
    read,
)
from caudal.runs.acts import end_in_words, in_words
from caudal.runs.folder import RunFolder
from caudal.runs.plan import TrainPlan, stored_plan
from caudal.runs.result import Result
from caudal.runs.spec import RunSpec
from caudal.tasks.base import Metrics

Column = npt.NDArray[np.float64]

# A run at work says something every second; a silence this long is a run that was not there.
_SILENCE_SECONDS = 30.0


@dataclass(frozen=True)
class Score:
    """Figures of the held-out part after a step."""

    step: int
    metrics: Metrics
    best: bool


@dataclass
class Story:
    """A run as far as it went. `outcome`: `succeeded`, `interrupted`, `failed`, `running` or `stopped`."""

    folder: RunFolder
    spec: RunSpec
    plan: TrainPlan | None
    result: Result | None
    outcome: str = "stopped"
    error: str = ""
    seconds: float = 0.0
    total_steps: int = 0
    steps: array[int] = field(default_factory=lambda: array("q"))
    losses: array[float] = field(default_factory=lambda: array("d"))
    rates: array[float] = field(default_factory=lambda: array("d"))
    samples: int = 0
    step_seconds: float = 0.0
    stall_seconds: float = 0.0
    read_at: array[float] = field(default_factory=lambda: array("d"))
    ram: array[float] = field(default_factory=lambda: array("d"))
    vram: array[float] = field(default_factory=lambda: array("d"))
    resumed_at: list[float] = field(default_factory=list)
    scores: list[Score] = field(default_factory=list)
    peaks: dict[str, int] = field(default_factory=dict)
    metrics: Metrics = field(default_factory=dict)
    acts: list[tuple[float, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def done_steps(self) -> int:
        """The last step that counts."""
        return self.steps[-1] if self.steps else 0

    @property
    def samples_per_second(self) -> float | None:
        """Over all steps, with the time waited for data."""
        return self.samples / self.step_seconds if self.step_seconds else None

    @property
    def stall(self) -> float | None:
        """Share of the steps' time in which they waited for data."""
        return self.stall_seconds / self.step_seconds if self.step_seconds else None

    @property
    def headline(self) -> str:
        """The figure by which models are compared; without a plan that says it, the one told first."""
        if self.plan is not None and self.plan.probe.headline:
            return self.plan.probe.headline
        told = self.metrics or (self.scores[-1].metrics if self.scores else {})
        return next(iter(told), "")

    @property
    def best(self) -> Score | None:
        """The score whose model was kept."""
        return next((score for score in reversed(self.scores) if score.best), None)

    @property
    def metrics_are_final(self) -> bool:
        """Whether the figures are of whole held-out images, after training."""
        return bool(self.metrics)

    def column(self, name: str) -> Column:
        """One of the columns as a numpy array of float64."""
        return np.array(getattr(self, name), np.float64)


def read_story(folder: RunFolder) -> Story:
    """Read spec, plan, result and events; what is missing is left out.

    Raises:
        UsageError: the spec cannot be read.
    """
    result = Result.model_validate(folder.read_json(folder.result)) if folder.result.is_file() else None
    story = Story(folder, RunSpec.from_toml(folder.spec), stored_plan(folder.plan), result)
    story.total_steps = story.spec.training.steps
    if story.plan is not None:
        story.warnings += story.plan.warnings
    if folder.events.is_file():
        _Teller(story).hear_all(folder.events)
    if result is not None:
        story.outcome, story.metrics = "succeeded", result.metrics or story.metrics
        story.peaks = result.peak_bytes or story.peaks
        for text in result.warnings:
            _note(story.warnings, text)
    if story.outcome == "stopped" and _is_owned(folder.path / ".lock"):
        story.outcome = "running"
    return story


def _is_owned(path: Path) -> bool:
    """Whether a living process works in the run."""
    if not path.is_file():
        return False
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def _note(texts: list[str], text: str) -> None:
    if text not in texts:
        texts.append(text)


class _Teller:
    """Puts events into a story, in their order."""

    def __init__(self, story: Story) -> None:
        self._story = story
        self._before: float | None = None
        self._sessions = 0
        self._ended = False

    def hear_all(self, path: Path) -> None:
        for event in read(path):
            self._clock(event)
            self._hear(event)

    def _clock(self, event: Event) -> None:
        gap = 0.0 if self._before is None else event.time - self._before
        if 0 < gap < _SILENCE_SECONDS and not self._ended:
            self._story.seconds += gap
        self._before, self._ended = event.time, False

    def _hear(self, event: Event) -> None:
        story = self._story
        if isinstance(event, StepDone):
            story.steps.append(event.step)
            story.losses.append(event.loss)
            story.rates.append(event.learning_rate)
            story.samples += event.samples
            story.step_seconds += event.step_seconds
            story.stall_seconds += event.stall_seconds
        elif isinstance(event, MemoryRead):
            self._memory(event)
        elif isinstance(event, Validated):
            story.scores.append(Score(event.step, event.metrics, event.best))
        elif isinstance(event, RunStarted):
            self._started(event)
        elif isinstance(event, Warned):
            _note(story.warnings, event.message)
        elif isinstance(event, RunEnded):
            self._finished(event)
        elif isinstance(event, RunKilled) and not event.goes_on:
            if event.reason != "out_of_memory":  # which has said itself why it failed
                story.outcome, story.error = "failed", end_in_words(event)
        elif words := in_words(event):
            story.acts.append((story.seconds, words))

    def _memory(self, event: MemoryRead) -> None:
        story = self._story
        story.read_at.append(story.seconds)
        story.ram.append(event.ram)
        story.vram.append(float("nan") if event.vram is None else event.vram)
        for pool, held in (("ram", event.ram), ("vram", event.vram or 0)):
            story.peaks[pool] = max(story.peaks.get(pool, 0), held)

    def _started(self, event: RunStarted) -> None:
        """A resumed run does the steps after its checkpoint again: the first time is forgotten."""
        story = self._story
        keep = bisect_right(story.steps, event.step)
        for column in (story.steps, story.losses, story.rates):
            del column[keep:]
        story.scores = [score for score in story.scores if score.step <= event.step]
        story.total_steps, story.outcome, story.error = event.total_steps, "stopped", ""
        if self._sessions:
            story.resumed_at.append(story.seconds)
        self._sessions += 1

    def _finished(self, event: RunEnded) -> None:
        story = self._story
        story.outcome, story.error, story.metrics = event.outcome, event.error, event.metrics
        for pool, held in event.peak_bytes.items():
            story.peaks[pool] = max(story.peaks.get(pool, 0), held)
        self._ended = True

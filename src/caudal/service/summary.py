"""How a job stands, in one small record: what progress bars and pages show. Made from its events."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from caudal.service.records import Job, StoredEvent
from caudal.service.states import Reason, State
from caudal.service.store import Store

_REMEMBERED = 256
_AT_ONCE = 500
_RECENT_STEPS = 50
_HEARD = (
    "run_started", "step_done", "validated", "memory_read", "warned",
    "tile_done", "part_done", "picture_step",
)  # fmt: skip


class StatusView(BaseModel):
    """How a job stands. Shares lie in [0, 1]; what is not known yet is `null`.

    `step` of `steps` are those of a training; elsewhere tiles, samples or pictures. `stall` is the share of
    the last steps that was waited for data, `left_seconds` what they say is left.
    """

    job: str
    state: State
    reason: Reason | None
    next: str
    done: float | None
    step: int | None
    steps: int | None
    epoch: int | None
    loss: float | None
    learning_rate: float | None
    metrics: dict[str, float | None]
    samples_per_second: float | None
    stall: float | None
    left_seconds: float | None
    ram_bytes: int | None
    vram_bytes: int | None
    peak_ram_bytes: int | None
    predicted_bytes: dict[str, int]
    budget_bytes: dict[str, int]
    warnings: list[str]
    seen_event: int


@dataclass
class _Story:
    """What the events of a job said so far."""

    last_id: int = 0
    steps: int | None = None
    began: float | None = None
    parts: tuple[int, int] | None = None
    heard: float = 0.0
    step: dict[str, Any] = field(default_factory=dict)
    recent: list[tuple[float, float, int]] = field(default_factory=list)
    metrics: dict[str, float | None] = field(default_factory=dict)
    ram: int | None = None
    vram: int | None = None
    peak: int | None = None
    predicted: dict[str, int] = field(default_factory=dict)
    budget: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def hear(self, event: StoredEvent) -> None:
        """Go on by one event."""
        body = event.body
        self.last_id = event.id
        match event.kind:
            case "run_started":
                self.steps, self.parts, self.recent = body.get("total_steps"), None, []
                self.began = event.time
                self.predicted, self.budget = body.get("predicted_bytes", {}), body.get("budget_bytes", {})
            case "step_done":
                self.step = body
                row = (body.get("step_seconds", 0.0), body.get("stall_seconds", 0.0), body.get("samples", 0))
                self.recent = [*self.recent[1 - _RECENT_STEPS :], row]
            case "validated":
                self.metrics = body.get("metrics", {})
            case "memory_read":
                self.ram, self.vram = body.get("ram"), body.get("vram")
                self.peak = max(self.peak or 0, self.ram or 0)
            case "tile_done" | "part_done" | "picture_step":
                self.parts, self.heard = (body.get("done", 0), body.get("total", 0)), event.time
            case "warned":
                self.warnings = [*self.warnings, str(body.get("message", ""))][-20:]


class Summaries:
    """The stories of the jobs that were asked for last; each goes on where it was. Thread-safe."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._stories: OrderedDict[str, _Story] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, job: Job) -> StatusView:
        """How a job stands now."""
        with self._lock:
            story = self._stories.pop(job.id, None) or _Story()
            self._stories[job.id] = story
            while len(self._stories) > _REMEMBERED:
                self._stories.popitem(last=False)
            if job.seen_event > story.last_id:
                self._go_on(job, story)
            return _view(job, story)

    def _go_on(self, job: Job, story: _Story) -> None:
        """Hear what is new; of very much, what nothing later says anew."""
        events = self._store.events.after(story.last_id, job.id, _AT_ONCE)
        for event in events:
            story.hear(event)
        if len(events) < _AT_ONCE:
            return
        most = self._store.events.most(story.last_id, job.id, "memory_read", "ram")
        for event in self._store.events.newest(story.last_id, job.id, _HEARD, _RECENT_STEPS):
            story.hear(event)
        story.peak = max(story.peak or 0, most) or None
        story.last_id = max(story.last_id, job.seen_event)


def _view(job: Job, story: _Story) -> StatusView:
    step, steps, seconds = story.step.get("step"), story.steps, sum(row[0] for row in story.recent)
    if story.parts is not None:
        step, steps = story.parts
    done = min(1.0, step / steps) if step is not None and steps else None
    left = None
    if step and steps and job.ended is None:
        if story.recent:
            left = max(0, steps - step) * seconds / len(story.recent)
        elif story.began is not None:
            left = max(0, steps - step) * max(0.0, story.heard - story.began) / step
    return StatusView(
        job=job.id,
        state=job.state,
        reason=job.reason,
        next=job.next,
        done=1.0 if job.state == "succeeded" else done,
        step=step,
        steps=steps,
        epoch=story.step.get("epoch"),
        loss=story.step.get("loss"),
        learning_rate=story.step.get("learning_rate"),
        metrics=story.metrics,
        samples_per_second=sum(row[2] for row in story.recent) / seconds if seconds else None,
        stall=sum(row[1] for row in story.recent) / seconds if seconds else None,
        left_seconds=left,
        ram_bytes=story.ram,
        vram_bytes=story.vram,
        peak_ram_bytes=story.peak,
        predicted_bytes=story.predicted,
        budget_bytes=story.budget,
        warnings=story.warnings,
        seen_event=max(job.seen_event, story.last_id),
    )

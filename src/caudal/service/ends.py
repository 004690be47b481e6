"""How an attempt ended, and what that means for its job: the table of ends, as one pure function.

Reads no clock, no file and no row. Who finds out how an attempt ended is `naming.py`.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from caudal.core.config import Frozen
from caudal.core.messages import _
from caudal.service.records import Job, Problem
from caudal.service.settings import Settings
from caudal.service.states import Reason, State

How = Reason | Literal["succeeded", "cancelled", "stopped"]
"""`stopped`: the worker was told to stop, and the job is to go on later."""


class Ending(Frozen):
    """How an attempt ended, with what was seen of it."""

    how: How
    signal: int = 0
    code: int | None = None
    seconds: float = 0.0
    peak_bytes: dict[str, int] = Field(default_factory=dict)
    limit_bytes: dict[str, int] = Field(default_factory=dict)
    last_events: list[dict[str, Any]] = Field(default_factory=list)
    result: dict[str, Any] | None = None
    error: Problem | None = None


class Step(Frozen):
    """Where the job goes from there; `next` says it to people."""

    state: State
    reason: Reason | None
    next: str
    smaller: bool = False
    wait_seconds: float = 0.0
    memory_retries: int = 0
    lost_retries: int = 0


_FIRST_WAIT_SECONDS = 0.5
_MOST_WAIT_SECONDS = 60.0


def wait_seconds(earlier: int) -> float:
    """How long to wait before a try after `earlier` others."""
    return float(min(_MOST_WAIT_SECONDS, _FIRST_WAIT_SECONDS * 2**earlier))


def next_step(job: Job, ending: Ending, settings: Settings) -> Step:
    """What a job does after an attempt ended so."""
    memory, lost = job.memory_retries, job.lost_retries
    how = ending.how

    def at(state: State, reason: Reason | None, text: str, **more: Any) -> Step:
        given = {"memory_retries": memory, "lost_retries": lost, "smaller": job.smaller} | more
        return Step(state=state, reason=reason, next=text, **given)

    if how == "succeeded":
        return at("succeeded", None, "")
    if job.cancel or how == "cancelled":
        return at("cancelled", None, _("Retry it to go on from its last checkpoint."))
    if how == "stopped":
        return at("queued", None, _("It goes on when a worker has room for it."))
    if how in ("oom_host", "oom_device"):
        if memory < settings.memory_retries:
            return at(
                "waiting", how, _("It goes on from its last checkpoint with a smaller plan."),
                smaller=True, wait_seconds=wait_seconds(memory), memory_retries=memory + 1,
            )  # fmt: skip
        return at("failed", how, _("Give it more memory, or a smaller budget, and retry it."))
    if how in ("killed", "worker_lost"):
        if lost < settings.lost_retries:
            return at(
                "waiting", how, _("It goes on from its last checkpoint."),
                wait_seconds=wait_seconds(lost), lost_retries=lost + 1,
            )  # fmt: skip
        return at("failed", how, _("See what ends its processes, and retry it."))
    if how == "does_not_fit" and job.smaller:
        # There is no smaller plan: what ended it is what asked for one.
        return at("failed", job.reason or "oom_host", _("No smaller plan is left: give it more memory."))
    return at("failed", how, _MENDS[how]())


_MENDS = {
    "oom_shm": lambda: _("Make room in /dev/shm, and retry it."),
    "disk_full": lambda: _("Make room on the disk, and retry it: it goes on from its last checkpoint."),
    "does_not_fit": lambda: _("Ask again with a larger budget, or for less work at once."),
    "timeout": lambda: _("Retry it to go on from its last checkpoint, with the same time again."),
    "data": lambda: _("Mend the data, and retry it."),
    "error": lambda: _("See its log, and retry it once the cause is gone."),
}

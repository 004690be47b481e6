"""What the service shows to its clients, as records. Keys of a later version of the service are left out."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict

T = TypeVar("T", bound=BaseModel)
ENDED = ("succeeded", "failed", "cancelled")


class Shown(BaseModel):
    """The base of what the service shows; keys of a later version are left out."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Project(Shown):
    """What jobs and data sets belong to."""

    id: str
    name: str
    jobs: int


class Dataset(Shown):
    """A folder or file that jobs may read; `place` is a root and the name below it."""

    id: str
    project: str
    name: str
    kind: str
    place: str


class Wrong(Shown):
    """What went wrong, and the mend."""

    code: str
    message: str
    hint: str


class Job(Shown):
    """A job. `state` is one of queued, starting, running, waiting, cancelling, unreachable, and `ENDED`."""

    id: str
    number: int
    version: int
    project: str
    name: str
    verb: str
    state: str
    reason: str | None
    error: Wrong | None
    next: str
    result: dict[str, Any] | None
    created: float
    started: float | None
    ended: float | None
    attempts: int
    run: str | None
    peak_bytes: dict[str, int]
    seen_event: int

    @property
    def has_ended(self) -> bool:
        """Whether it will not change by itself any more."""
        return self.state in ENDED


class Status(Shown):
    """How a job stands: shares in [0, 1], `None` for what is not known yet."""

    job: str
    state: str
    next: str
    done: float | None
    step: int | None
    steps: int | None
    loss: float | None
    metrics: dict[str, float | None]
    samples_per_second: float | None
    stall: float | None
    left_seconds: float | None
    ram_bytes: int | None
    peak_ram_bytes: int | None


class Event(Shown):
    """Something that happened in a job; `id` grows."""

    id: int
    job: str
    kind: str
    time: float
    body: dict[str, Any]


class Sent(Shown):
    """A file that the service took."""

    name: str
    bytes: int
    facts: dict[str, Any]


class Plan(Shown):
    """What a training would hold; its `id` may be given to a job."""

    id: str
    task: str
    predicted_bytes: dict[str, int]
    budget_bytes: dict[str, int]
    levers: dict[str, str]
    seconds: float
    warnings: list[str]


class Page(Shown, Generic[T]):
    """Some of a list, and the cursor of the rest."""

    items: list[T]
    next: str | None

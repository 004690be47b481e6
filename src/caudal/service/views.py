"""What the API shows: records of the store, with ids and names of roots where they hold paths.

A view says which keys of its record are shown; what it does not name stays inside.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict

from caudal.core.config import Frozen
from caudal.service.places import Veil
from caudal.service.records import Scope
from caudal.service.states import Reason, State

Figures = dict[str, float | None]
_NAMES = {"project": "project_id", "job": "job_id", "run": "run_id", "place": "path"}
"""The keys of records that are called otherwise when they are shown."""


class View(BaseModel):
    """The base of all of them. `veiled` are the keys that may hold paths."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    veiled: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def of(cls, record: Frozen, veil: Veil | None = None) -> Self:
        """As the store has it, without where its files and processes are."""
        said = cls.said(record)
        shown = {name: said[name if name in said else _NAMES[name]] for name in cls.model_fields}
        assert veil is not None or not cls.veiled, "paths are shown to nobody"
        return cls.model_validate(
            {name: veil.all(value) if veil and name in cls.veiled else value for name, value in shown.items()}
        )

    @classmethod
    def said(cls, record: Frozen) -> dict[str, Any]:
        """What the record says."""
        return record.model_dump(mode="json")


class ProjectView(View):
    """What jobs and data sets belong to."""

    id: str
    name: str
    created: float
    jobs: int


class DatasetView(View):
    """A folder or file that jobs may read; `place` is a root's name and the name below it."""

    veiled = frozenset({"place", "facts"})

    id: str
    project: str
    name: str
    kind: Literal["root", "upload"]
    place: str
    bytes: int
    facts: dict[str, Any]
    created: float


class FileView(View):
    """A file: its name from its data set or run, and when it changed (seconds since the epoch)."""

    name: str
    bytes: int
    changed: float


class WrongView(View):
    """What went wrong with a job, and the mend."""

    code: str
    message: str
    hint: str


class JobView(View):
    """A job: what was asked for, its state, and how it went. Times are seconds since the epoch.

    `reason` says why it failed, `next` what will happen now. `version` grows with each change, and is the
    ETag. `run` is the id of what it writes, once there is something. `seen_event` is its last event.
    """

    veiled = frozenset({"work", "error", "next", "result", "last_events"})

    id: str
    number: int
    version: int
    project: str
    name: str
    verb: str
    work: dict[str, Any]
    state: State
    reason: Reason | None
    error: WrongView | None
    next: str
    result: dict[str, Any] | None
    priority: int
    created: float
    queued: float
    started: float | None
    ended: float | None
    limit_seconds: float | None
    spent_seconds: float
    ram_bytes: int | None
    vram_bytes: int | None
    peak_bytes: dict[str, int]
    limit_bytes: dict[str, int]
    attempts: int
    run: str | None
    seen_event: int
    last_events: list[dict[str, Any]]

    @classmethod
    def said(cls, record: Frozen) -> dict[str, Any]:
        """With the verb beside the work; of the work what was given."""
        said = super().said(record)
        work = {key: value for key, value in said["work"].items() if value is not None and key != "reads"}
        return said | {"verb": work["verb"], "work": work}


class AttemptView(View):
    """One try at a job, on one worker."""

    veiled = frozenset({"last_events", "next"})

    number: int
    worker: str
    state: Literal["open", "ended"]
    reason: str | None
    signal: int
    code: int | None
    seconds: float
    peak_bytes: dict[str, int]
    limit_bytes: dict[str, int]
    last_events: list[dict[str, Any]]
    next: str
    started: float
    ended: float | None


class EventView(View):
    """Something that happened in a job. Ids grow over all jobs: ask for what is after the last one."""

    veiled = frozenset({"body"})

    id: int
    job: str
    attempt: int
    kind: str
    time: float
    body: dict[str, Any]


class RunView(View):
    """What a job wrote, or is writing."""

    veiled = frozenset({"result"})

    id: str
    job: str
    project: str
    verb: str
    task: str | None
    metrics: Figures
    result: dict[str, Any] | None
    created: float
    ended: float | None


class ModelView(View):
    """What a training left; `run` is where its files are."""

    id: str
    run: str
    project: str
    task: str | None
    metrics: Figures
    created: float


class KeyView(View):
    """A key, without what it is."""

    id: str
    name: str
    scopes: list[str]
    created: float
    expires: float | None
    revoked: float | None
    last_used: float | None


class CallerView(View):
    """Who is asking."""

    id: str
    name: str
    scopes: list[Scope]


class WorkerView(View):
    """A machine that takes jobs, and what they may hold there together."""

    id: str
    name: str
    queue: str
    ram_bytes: int
    vram_bytes: int
    started: float
    seen: float
    state: Literal["here", "away", "gone"]


class AuditView(View):
    """Who did what, when, from where."""

    id: int
    time: float
    actor: str
    action: str
    object: str
    address: str
    detail: dict[str, Any]

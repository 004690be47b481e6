"""What the store gives: records that cannot change. Times are seconds since the epoch, sizes bytes."""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import Field

from caudal.core.config import Frozen
from caudal.service.states import Reason, State
from caudal.service.work import Work

Scope = Literal["read", "run", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
"""What a key may do; each has those before it."""


class Problem(Frozen):
    """What went wrong, and the mend; `code` is that of the error, or the reason."""

    code: str
    message: str
    hint: str = ""


class Project(Frozen):
    """What jobs and data sets belong to; `jobs` is how many it has."""

    id: str
    name: str
    created: float
    jobs: int = 0


class Dataset(Frozen):
    """A folder or a file that jobs may read."""

    id: str
    project_id: str
    name: str
    kind: Literal["root", "upload"]
    path: str
    bytes: int
    facts: dict[str, Any]
    created: float


class Job(Frozen):
    """What somebody asked for, and how far it came.

    `number` ascends with each job; `version` with each change of this one. `fence` is the number of the
    attempt that alone may write. `ram_bytes` and `vram_bytes` are what admission counts (`None`: all there
    is); `granted_ram` what its verb was told. `wait_seconds` is how long `waiting` lasts.
    """

    id: str
    number: int
    version: int
    project_id: str
    name: str
    work: Work
    state: State
    reason: Reason | None
    error: Problem | None
    next: str
    result: dict[str, Any] | None
    priority: int
    created: float
    queued: float
    started: float | None
    ended: float | None
    limit_seconds: float | None
    spent_seconds: float
    wait_seconds: float
    ram_bytes: int | None
    vram_bytes: int | None
    granted_ram: int | None
    peak_bytes: dict[str, int]
    limit_bytes: dict[str, int]
    attempts: int
    fence: int
    cancel: bool
    smaller: bool
    memory_retries: int
    lost_retries: int
    run_id: str | None
    seen_event: int
    last_events: list[dict[str, Any]]


class Attempt(Frozen):
    """One try at a job, under one supervisor.

    `place` names the kernel and the process namespace in which `pid` (which began at tick `pid_began` of that
    kernel) is a number; `beat` grows while the supervisor is heard of. `ram_bytes` and `vram_bytes` are kept
    free for it, `None` where there is nothing of the kind.
    """

    id: str
    job_id: str
    number: int
    fence: int
    worker: str
    place: str
    pid: int | None
    pid_began: int | None
    state: Literal["open", "ended"]
    beat: int
    ram_bytes: int
    vram_bytes: int
    reason: Reason | Literal["cancelled", "stopped"] | None
    signal: int
    code: int | None
    seconds: float
    peak_bytes: dict[str, int]
    limit_bytes: dict[str, int]
    last_events: list[dict[str, Any]]
    next: str
    started: float
    ended: float | None


class Run(Frozen):
    """The folder that a job writes."""

    id: str
    job_id: str
    project_id: str
    verb: str
    folder: str
    task: str | None
    metrics: dict[str, float | None]
    result: dict[str, Any] | None
    created: float
    ended: float | None


class Model(Frozen):
    """What a training left."""

    id: str
    run_id: str
    project_id: str
    folder: str
    task: str | None
    metrics: dict[str, float | None]
    created: float


class StoredEvent(Frozen):
    """Something that happened in a job. `id` grows in the order in which they can be read, over all jobs."""

    id: int
    job_id: str
    attempt: int
    kind: str
    time: float
    body: dict[str, Any]


class Worker(Frozen):
    """A machine that takes jobs, and what they may hold there together."""

    id: str
    name: str
    place: str
    pid: int
    queue: str
    ram_bytes: int
    vram_bytes: int
    started: float
    seen: float
    state: Literal["here", "away", "gone"]


class ApiKey(Frozen):
    """Who may ask for what; the key itself is kept by nobody."""

    id: str
    name: str
    scopes: list[str]
    hash: str = Field(repr=False)
    created: float
    expires: float | None
    revoked: float | None
    last_used: float | None


class Once(Frozen):
    """A client's own name for what it asks, so that asking twice does it once."""

    owner: str
    key: str
    fingerprint: str


class Kept(Frozen):
    """What was answered to it."""

    owner: str
    key: str
    fingerprint: str
    status: int
    body: Any
    created: float


class AuditEntry(Frozen):
    """Who did what, when, from where."""

    id: int
    time: float
    actor: str
    action: str
    object: str
    address: str
    detail: dict[str, Any]

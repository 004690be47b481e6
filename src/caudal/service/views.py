"""What the API shows: records of the store, with ids and names of roots where they hold paths."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from caudal.service import records
from caudal.service.places import Veil
from caudal.service.states import Reason, State

Figures = dict[str, float | None]


class View(BaseModel):
    """The base of all of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ProjectView(View):
    """What jobs and data sets belong to."""

    id: str
    name: str
    created: float
    jobs: int

    @classmethod
    def of(cls, project: records.Project) -> ProjectView:
        """As the store has it."""
        return cls(id=project.id, name=project.name, created=project.created, jobs=project.jobs)


class DatasetView(View):
    """A folder or file that jobs may read; `place` is a root's name and the name below it."""

    id: str
    project: str
    name: str
    kind: Literal["root", "upload"]
    place: str
    bytes: int
    facts: dict[str, Any]
    created: float

    @classmethod
    def of(cls, dataset: records.Dataset, veil: Veil) -> DatasetView:
        """Without where it is."""
        return cls(
            id=dataset.id,
            project=dataset.project_id,
            name=dataset.name,
            kind=dataset.kind,
            place=veil(dataset.path),
            bytes=dataset.bytes,
            facts=veil.all(dataset.facts),
            created=dataset.created,
        )


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
    def of(cls, job: records.Job, veil: Veil) -> JobView:
        """Without where its files are."""
        error = job.error
        return cls(
            id=job.id,
            number=job.number,
            version=job.version,
            project=job.project_id,
            name=job.name,
            verb=job.work.verb,
            work=veil.all(job.work.model_dump(mode="json", exclude_none=True)),
            state=job.state,
            reason=job.reason,
            error=WrongView(code=error.code, message=veil(error.message), hint=veil(error.hint))
            if error
            else None,
            next=veil(job.next),
            result=veil.all(job.result),
            priority=job.priority,
            created=job.created,
            queued=job.queued,
            started=job.started,
            ended=job.ended,
            limit_seconds=job.limit_seconds,
            spent_seconds=job.spent_seconds,
            ram_bytes=job.ram_bytes,
            vram_bytes=job.vram_bytes,
            peak_bytes=job.peak_bytes,
            limit_bytes=job.limit_bytes,
            attempts=job.attempts,
            run=job.run_id,
            seen_event=job.seen_event,
            last_events=veil.all(job.last_events),
        )


class AttemptView(View):
    """One try at a job, on one worker."""

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

    @classmethod
    def of(cls, attempt: records.Attempt, veil: Veil) -> AttemptView:
        """Without where its process is."""
        names = set(cls.model_fields)
        return cls.model_validate(veil.all(attempt.model_dump(include=names)))


class EventView(View):
    """Something that happened in a job. Ids grow over all jobs: ask for what is after the last one."""

    id: int
    job: str
    attempt: int
    kind: str
    time: float
    body: dict[str, Any]

    @classmethod
    def of(cls, event: records.StoredEvent, veil: Veil) -> EventView:
        """Without paths."""
        return cls(
            id=event.id,
            job=event.job_id,
            attempt=event.attempt,
            kind=event.kind,
            time=event.time,
            body=veil.all(event.body),
        )


class RunView(View):
    """What a job wrote, or is writing."""

    id: str
    job: str
    project: str
    verb: str
    task: str | None
    metrics: Figures
    result: dict[str, Any] | None
    created: float
    ended: float | None

    @classmethod
    def of(cls, run: records.Run, veil: Veil) -> RunView:
        """Without where it is."""
        return cls(
            id=run.id,
            job=run.job_id,
            project=run.project_id,
            verb=run.verb,
            task=run.task,
            metrics=run.metrics,
            result=veil.all(run.result),
            created=run.created,
            ended=run.ended,
        )


class ModelView(View):
    """What a training left; `run` is where its files are."""

    id: str
    run: str
    project: str
    task: str | None
    metrics: Figures
    created: float

    @classmethod
    def of(cls, model: records.Model) -> ModelView:
        """Without where it is."""
        return cls(
            id=model.id,
            run=model.run_id,
            project=model.project_id,
            task=model.task,
            metrics=model.metrics,
            created=model.created,
        )


class KeyView(View):
    """A key, without what it is."""

    id: str
    name: str
    scopes: list[str]
    created: float
    expires: float | None
    revoked: float | None
    last_used: float | None

    @classmethod
    def of(cls, key: records.ApiKey) -> KeyView:
        """Without its hash."""
        return cls.model_validate(key.model_dump(exclude={"hash"}))


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

    @classmethod
    def of(cls, worker: records.Worker) -> WorkerView:
        """Without its process."""
        return cls.model_validate(worker.model_dump(include=set(cls.model_fields)))


class AuditView(View):
    """Who did what, when, from where."""

    id: int
    time: float
    actor: str
    action: str
    object: str
    address: str
    detail: dict[str, Any]

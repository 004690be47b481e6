"""Jobs as people see them: asked for, listed, cancelled, asked for again. Who runs them is `claims.py`."""

from __future__ import annotations

import builtins
import time
from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sa

from caudal.core.messages import _
from caudal.service.errors import Conflict
from caudal.service.ids import new_id
from caudal.service.records import Attempt, Job, Once
from caudal.service.states import ACTIVE, ENDED, State
from caudal.service.store import rows
from caudal.service.store import tables as t
from caudal.service.store.engine import Database
from caudal.service.work import Work

LEAST_PRIORITY, MOST_PRIORITY = -10, 10
_ATTEMPT_COLUMNS = [t.attempts.c[name] for name in Attempt.model_fields]


class Jobs:
    """See each function; all raise `StoreAway` where the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def submit(
        self,
        project_id: str,
        work: Work,
        *,
        name: str = "",
        priority: int = 0,
        limit_seconds: float | None = None,
        ram_bytes: int | None = None,
        vram_bytes: int | None = None,
        once: Once | None = None,
        job_id: str | None = None,
    ) -> tuple[Job, bool]:
        """Put a job in line; whether it is a new one. With the same `once` again it is the earlier job.

        `ram_bytes` and `vram_bytes` are what its plan says that it will hold; else its own budget counts.
        `job_id` is a new id for it, where somebody had to know that before.

        Raises:
            NotFound: there is no such project.
            Conflict: `once` was used for something else.
        """
        with self._database.writing() as connection:
            if once is not None and (earlier := _earlier(connection, once)):
                return rows.job_row(connection, earlier), False
            if not connection.execute(
                sa.select(t.projects.c.id).where(t.projects.c.id == project_id)
            ).first():
                raise rows.missing(project_id)
            job_id, now = job_id or new_id(), time.time()
            budget = work.ram
            vram = getattr(work, "vram", None)
            on_cpu = getattr(work, "device", None) == "cpu" or work.verb == "pack"
            values: dict[str, Any] = {
                "id": job_id, "number": rows.count(connection, "jobs"), "version": 1,
                "project_id": project_id, "name": name, "verb": work.verb,
                "work": work.model_dump(mode="json"),
                "state": "queued",
                "next": _("It starts when there is room for it."),
                "priority": max(LEAST_PRIORITY, min(MOST_PRIORITY, priority)),
                "place_in_line": rows.count(connection, "line"), "passed": 0,
                "created": now, "queued": now, "limit_seconds": limit_seconds,
                "spent_seconds": 0.0, "wait_seconds": 0.0,
                "ram_bytes": ram_bytes if ram_bytes is not None else budget,
                "vram_bytes": 0 if on_cpu else vram_bytes if vram_bytes is not None else vram,
                "granted_ram": budget, "peak_bytes": {}, "limit_bytes": {}, "attempts": 0, "fence": 0,
                "cancel": False, "smaller": False, "memory_retries": 0, "lost_retries": 0,
                "seen_event": 0, "last_events": [], "tail_offset": 0,
            }  # fmt: skip
            connection.execute(sa.insert(t.jobs).values(**values))
            rows.say_state(connection, rows.job_row(connection, job_id))
            if once is not None:
                kept = once.model_dump() | {"status": 0, "body": None, "job_id": job_id, "created": now}
                connection.execute(sa.insert(t.idempotency_keys).values(**kept))
            return rows.job_row(connection, job_id), True

    def earlier(self, once: Once) -> Job | None:
        """The job that was made under the same key.

        Raises:
            Conflict: the key was used for something else.
        """
        with self._database.reading() as connection:
            found = _earlier(connection, once)
            return rows.job_row(connection, found) if found else None

    def specs_in_use(self, specs: Collection[str]) -> set[str]:
        """Those of the files `specs` that jobs which have not succeeded were told to train by."""
        spec = t.jobs.c.work["spec"].as_string()  # the database reads it: of all jobs, none comes here whole
        query = sa.select(spec).where(t.jobs.c.verb == "train", t.jobs.c.state != "succeeded")
        with self._database.reading() as connection:
            return {str(row[0]) for row in connection.execute(query.where(spec.in_(specs)).distinct())}

    def get(self, job_id: str) -> Job:
        """One job.

        Raises:
            NotFound: there is none of that name.
        """
        with self._database.reading() as connection:
            return rows.job_row(connection, job_id)

    def list(
        self,
        project_id: str | None = None,
        states: Sequence[State] = (),
        verb: str | None = None,
        limit: int = 50,
        before: int | None = None,
    ) -> list[Job]:
        """The newest first; `before` is the number of the last job of the page before."""
        query = rows.jobs_query().order_by(t.jobs.c.number.desc()).limit(rows.page(limit))
        if project_id is not None:
            query = query.where(t.jobs.c.project_id == project_id)
        if states:
            query = query.where(t.jobs.c.state.in_(states))
        if verb is not None:
            query = query.where(t.jobs.c.verb == verb)
        if before is not None:
            query = query.where(t.jobs.c.number < before)
        with self._database.reading() as connection:
            return rows.many(connection, query, Job)

    def counts(self) -> dict[str, int]:
        """How many jobs are in each state that has any."""
        query = sa.select(t.jobs.c.state, sa.func.count()).group_by(t.jobs.c.state)
        with self._database.reading() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def active(self) -> builtins.list[Job]:
        """Those that run, or are about to, or whose supervisor is out of reach."""
        query = rows.jobs_query().where(t.jobs.c.state.in_(sorted(ACTIVE))).order_by(t.jobs.c.number)
        with self._database.reading() as connection:
            return rows.many(connection, query, Job)

    def cancel(self, job_id: str) -> Job:
        """End a job: at once where it does not run, else as soon as its processes and their memory are gone.

        Raises:
            NotFound: there is none of that name.
            Conflict: it has ended.
        """
        with self._database.writing() as connection:
            job = rows.job_row(connection, job_id, lock=True)
            if job.state in ENDED:
                raise Conflict(
                    _("The job has ended: it is {state}.").format(state=job.state),
                    _("There is nothing to cancel."),
                )
            if job.state in ("queued", "waiting"):
                moved = rows.move(
                    connection, job, "cancelled",
                    cancel=True, ended=time.time(), next=_("Retry it to go on from its last checkpoint."),
                )  # fmt: skip
            elif job.state in ("starting", "running"):
                text = _("It is asked to end; what does not heed that is killed.")
                moved = rows.move(connection, job, "cancelling", cancel=True, next=text)
            elif job.state == "unreachable":
                rows.change(
                    connection, job.id, cancel=True, next=_("It ends once its worker can be reached.")
                )
                moved = rows.job_row(connection, job.id)
                rows.say_state(connection, moved)
            else:
                moved = job
            assert moved is not None, "the row is locked"
            return rows.job_row(connection, job_id)

    def retry(self, job_id: str, smaller: bool = False) -> Job:
        """Put a job that failed or was cancelled in line again; it goes on in the same folder.

        `smaller`: on a plan that holds less than the last one.

        Raises:
            NotFound: there is none of that name.
            Conflict: it has not ended, or has succeeded.
        """
        with self._database.writing() as connection:
            job = rows.job_row(connection, job_id, lock=True)
            if job.state not in ("failed", "cancelled"):
                raise Conflict(
                    _("The job is {state}.").format(state=job.state),
                    _("Only what failed or was cancelled can be tried again."),
                )
            moved = rows.move(
                connection, job, "queued",
                reason=None, error=None, ended=None, cancel=False, smaller=smaller, memory_retries=0,
                lost_retries=0, spent_seconds=0.0, passed=0, queued=time.time(),
                place_in_line=rows.count(connection, "line"), next=_("It starts when there is room for it."),
            )  # fmt: skip
            assert moved is not None, "the row is locked"
            return moved

    def attempts(self, job_id: str, limit: int = rows.MOST_A_PAGE, after: int = 0) -> builtins.list[Attempt]:
        """A page of the tries at a job: those after number `after`, the first one first.

        Raises:
            NotFound: there is no such job.
        """
        a = t.attempts.c
        query = sa.select(*_ATTEMPT_COLUMNS).where(a.job_id == job_id, a.number > after).order_by(a.number)
        with self._database.reading() as connection:
            rows.job_row(connection, job_id)
            return rows.many(connection, query.limit(rows.page(limit)), Attempt)


def _earlier(connection: sa.Connection, once: Once) -> str | None:
    """The job that was made under the same key."""
    k = t.idempotency_keys.c
    found = connection.execute(
        sa.select(k.job_id, k.fingerprint).where(k.owner == once.owner, k.key == once.key)
    ).first()
    if found is None:
        return None
    if found.fingerprint != once.fingerprint or found.job_id is None:
        raise key_was_used()
    return str(found.job_id)


def key_was_used() -> Conflict:
    """The error for a key that stands for something else."""
    return Conflict(
        _("The Idempotency-Key was used for another request."), _("Use a new key for each thing you ask for.")
    )

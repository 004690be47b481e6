"""Attempts as workers see them: claimed, begun, heard of, ended. Each a compare-and-set on the fence.

Decides nothing: which job begins is `admission`, where it goes after an attempt is `ends`. Rows are locked in
one order, a job before its attempt and both before counters, so that nobody waits in a circle.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from caudal.core.messages import _
from caudal.service.admission import PASSES_A_RANK, Candidate, Room, choose
from caudal.service.ends import Ending, next_step
from caudal.service.ids import new_id
from caudal.service.records import Attempt, Job
from caudal.service.settings import Settings
from caudal.service.states import State
from caudal.service.store import rows
from caudal.service.store import tables as t
from caudal.service.store.engine import Database
from caudal.service.store.line import IN_VIEW
from caudal.service.store.outcome import begin_run, write_down

_ATTEMPT_COLUMNS = [t.attempts.c[name] for name in Attempt.model_fields]


class Superseded(Exception):
    """The attempt was ended by somebody else: whoever works for it has to stop, and may write nothing."""


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine that takes jobs: its name, where its process numbers mean something, what jobs may hold."""

    name: str
    place: str
    ram_bytes: int
    vram_bytes: int
    most_jobs: int


class Claims:
    """See each function; all raise `StoreAway` where the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def claim(self, machine: Machine) -> tuple[Job, Attempt] | None:
        """Begin the attempt whose turn it is on that machine; `None` where none fits, or none is in line."""
        with self._database.writing() as connection:
            _alone(connection, machine.name)
            room = _room(connection, machine)
            if room.free_places < 1:
                return None
            chosen = choose(_in_line(connection), _running(connection), room)
            if chosen is None:
                return None
            query = rows.jobs_query().where(t.jobs.c.id == chosen.id, t.jobs.c.state == "queued")
            row = connection.execute(query.with_for_update(skip_locked=True)).mappings().first()
            if row is None:
                return None  # another machine was first; it is asked again soon
            job = Job.model_validate(dict(row))
            ram, vram = chosen.needs(room)
            attempt = _open(connection, job, machine, ram, vram)
            _pass_by(connection, chosen)
            moved = rows.move(
                connection, job, "starting",
                fence=attempt.fence, attempts=attempt.number, started=job.started or time.time(),
                granted_ram=job.granted_ram or machine.ram_bytes, error=None, next="",
                run_id=job.id, limit_bytes=attempt.limit_bytes,
            )  # fmt: skip
            assert moved is not None, "the row is locked"
            return moved, attempt

    def open_attempts(self) -> list[Attempt]:
        """Those that have not ended."""
        query = (
            sa.select(*_ATTEMPT_COLUMNS).where(t.attempts.c.state == "open").order_by(t.attempts.c.started)
        )
        with self._database.reading() as connection:
            return rows.many(connection, query, Attempt)

    def attempt(self, attempt_id: str) -> Attempt:
        """One attempt.

        Raises:
            NotFound: there is none of that name.
        """
        query = sa.select(*_ATTEMPT_COLUMNS).where(t.attempts.c.id == attempt_id)
        with self._database.reading() as connection:
            return rows.one(connection, query, Attempt, attempt_id)

    def register(self, attempt_id: str, pid: int, pid_began: int) -> tuple[Job, Attempt]:
        """The supervisor is there, and these are its marks.

        Raises:
            Superseded: the attempt has ended, or has a supervisor.
        """
        a = t.attempts.c
        with self._database.writing() as connection:
            done = connection.execute(
                sa.update(t.attempts)
                .where(a.id == attempt_id, a.state == "open", a.pid.is_(None))
                .values(pid=pid, pid_began=pid_began, beat=a.beat + 1)
            )
            if done.rowcount != 1:
                raise Superseded(attempt_id)
            attempt = rows.one(
                connection, sa.select(*_ATTEMPT_COLUMNS).where(a.id == attempt_id), Attempt, attempt_id
            )
            return rows.job_row(connection, attempt.job_id), attempt

    def beat(self, attempt: Attempt, spent_seconds: float | None = None) -> Job:
        """The supervisor is alive; the job as it stands, back in reach if it was thought out of it.

        Raises:
            Superseded: the attempt was ended by somebody else.
        """
        a = t.attempts.c
        with self._database.writing() as connection:
            job = rows.job_row(connection, attempt.job_id, lock=True)
            done = connection.execute(
                sa.update(t.attempts).where(a.id == attempt.id, a.state == "open").values(beat=a.beat + 1)
            )
            if done.rowcount != 1 or job.fence != attempt.fence:
                raise Superseded(attempt.id)
            if spent_seconds is not None:
                same = (t.jobs.c.id == job.id) & (t.jobs.c.fence == attempt.fence)
                connection.execute(sa.update(t.jobs).where(same).values(spent_seconds=spent_seconds))
            if job.state == "unreachable":
                to: State = "cancelling" if job.cancel else "running"
                moved = rows.move(connection, job, to, next="")
                assert moved is not None, "the row is locked"
                return moved
            return job

    def look(self, attempt: Attempt) -> Job:
        """The job as it stands, without writing; else as `beat`."""
        with self._database.reading() as connection:
            job = rows.job_row(connection, attempt.job_id)
        if job.fence != attempt.fence or job.state not in (
            "starting",
            "running",
            "cancelling",
            "unreachable",
        ):
            raise Superseded(attempt.id)
        return job

    def running(self, attempt: Attempt, folder: Path, task: str | None = None) -> Job:
        """The work has begun: it learns `task`, if anything, and writes into `folder`.

        Raises:
            Superseded: the attempt was ended by somebody else.
        """
        with self._database.writing() as connection:
            job = rows.job_row(connection, attempt.job_id, lock=True)
            if job.fence != attempt.fence:
                raise Superseded(attempt.id)
            begin_run(connection, job, folder, task)
            if job.state != "starting":  # asked to end meanwhile
                return job
            moved = rows.move(connection, job, "running", next="")
            assert moved is not None, "the row is locked"
            return moved

    def needs(self, attempt: Attempt, ram_bytes: int, vram_bytes: int) -> bool:
        """Its plan is known now: so much is kept free for it, and no more.

        False where its machine has not so much free: then it may not go on there, and waits for it in line.
        """
        a, values = t.attempts.c, {"ram_bytes": ram_bytes, "vram_bytes": vram_bytes}
        with self._database.writing() as connection:
            _alone(connection, attempt.worker)
            rows.job_row(connection, attempt.job_id, lock=True)
            same = (t.jobs.c.id == attempt.job_id) & (t.jobs.c.fence == attempt.fence)
            connection.execute(sa.update(t.jobs).where(same).values(**values))
            if not _has_room(connection, attempt, ram_bytes, vram_bytes):
                return False
            still = (a.id == attempt.id) & (a.state == "open")
            connection.execute(sa.update(t.attempts).where(still).values(**values))
            return True

    def lost_contact(self, attempt: Attempt) -> Job | None:
        """Its supervisor was not heard of for a lease, and this is not its machine: nobody says it failed."""
        with self._database.writing() as connection:
            job = rows.job_row(connection, attempt.job_id, lock=True)
            if job.fence != attempt.fence or job.state not in ("starting", "running", "cancelling"):
                return None
            if _beat(connection, attempt.id) != attempt.beat:
                return None
            text = _("Its worker {worker} cannot be reached; it may well go on there.").format(
                worker=attempt.worker
            )
            return rows.move(connection, job, "unreachable", next=text)

    def end(self, attempt: Attempt, ending: Ending, settings: Settings, unheard: bool = False) -> Job | None:
        """An attempt ended so; the job goes where `ends` says. `None` where that was known already.

        `unheard`: only if its supervisor was not heard of since `attempt` was read.
        """
        a = t.attempts.c
        with self._database.writing() as connection:
            job = rows.job_row(connection, attempt.job_id, lock=True)
            still = (a.id == attempt.id) & (a.state == "open")
            if unheard:
                still &= a.beat == attempt.beat
            step = next_step(job, ending, settings)
            done = connection.execute(
                sa.update(t.attempts)
                .where(still)
                .values(
                    state="ended",
                    reason=None if ending.how == "succeeded" else ending.how,
                    signal=ending.signal,
                    code=ending.code,
                    seconds=ending.seconds,
                    peak_bytes=ending.peak_bytes,
                    limit_bytes=ending.limit_bytes,
                    last_events=ending.last_events,
                    next=step.next,
                    ended=time.time(),
                )
            )
            if done.rowcount != 1:
                return None
            if job.fence != attempt.fence:
                return job
            return write_down(connection, job, ending, step)

    def take_events(
        self, attempt: Attempt, said: Sequence[rows.Said], start: int, end: int
    ) -> tuple[int, bool]:
        """Keep the events of bytes `start` to `end` of the run's file, once; where the next ones begin.

        The second value is false where others were kept meanwhile, and the caller has to read on from there.

        Raises:
            Superseded: another attempt reads the file now.
        """
        j = t.jobs.c
        with self._database.writing() as connection:
            same = (j.id == attempt.job_id) & (j.fence == attempt.fence)
            done = connection.execute(
                sa.update(t.jobs).where(same, j.tail_offset == start).values(tail_offset=end)
            )
            if done.rowcount == 1:
                if said:
                    rows.say(connection, attempt.job_id, attempt.number, said)
                return end, True
            offset = connection.execute(sa.select(j.tail_offset).where(same)).scalar()
            if offset is None:
                raise Superseded(attempt.id)
            return int(offset), False

    def tail_offset(self, job_id: str) -> int:
        """Up to which byte of a run's file its events are kept."""
        with self._database.reading() as connection:
            return int(
                connection.execute(sa.select(t.jobs.c.tail_offset).where(t.jobs.c.id == job_id)).scalar_one()
            )


def _beat(connection: sa.Connection, attempt_id: str) -> int | None:
    return connection.execute(sa.select(t.attempts.c.beat).where(t.attempts.c.id == attempt_id)).scalar()


def _alone(connection: sa.Connection, machine: str) -> None:
    """Two processes of one machine must not both count the same free bytes as theirs."""
    if connection.dialect.name != "sqlite":  # there, whoever writes is alone anyway
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtext(machine))))


def _has_room(connection: sa.Connection, attempt: Attempt, ram_bytes: int, vram_bytes: int) -> bool:
    """Whether what an attempt is to hold is no more than was kept for it, or its machine has it free."""
    a, w = t.attempts.c, t.workers.c
    kept = connection.execute(sa.select(a.ram_bytes, a.vram_bytes).where(a.id == attempt.id)).one()
    if ram_bytes <= kept[0] and vram_bytes <= kept[1]:
        return True
    query = sa.select(w.ram_bytes, w.vram_bytes).where(w.name == attempt.worker).order_by(w.id.desc())
    machine = connection.execute(query.limit(1)).first()
    if machine is None:  # nobody told how large it is
        return True
    others = (a.state == "open") & (a.worker == attempt.worker) & (a.id != attempt.id)
    used = connection.execute(
        sa.select(sa.func.sum(a.ram_bytes), sa.func.sum(a.vram_bytes)).where(others)
    ).one()
    free = int(machine[0]) - int(used[0] or 0), int(machine[1]) - int(used[1] or 0)
    return ram_bytes <= free[0] and vram_bytes <= free[1]


def _room(connection: sa.Connection, machine: Machine) -> Room:
    a = t.attempts.c
    used = connection.execute(
        sa.select(sa.func.count(), sa.func.sum(a.ram_bytes), sa.func.sum(a.vram_bytes)).where(
            a.state == "open", a.worker == machine.name
        )
    ).one()
    return Room(
        ram=machine.ram_bytes,
        vram=machine.vram_bytes,
        free_ram=machine.ram_bytes - int(used[1] or 0),
        free_vram=machine.vram_bytes - int(used[2] or 0),
        free_places=machine.most_jobs - int(used[0]),
    )


def _in_line(connection: sa.Connection) -> list[Candidate]:
    j = t.jobs.c
    query = (
        sa.select(j.id, j.project_id, j.priority, j.passed, j.place_in_line, j.ram_bytes, j.vram_bytes)
        .where(j.state == "queued")
        .order_by((j.priority * PASSES_A_RANK + j.passed).desc(), j.place_in_line)
        .limit(IN_VIEW)
    )
    return [Candidate(*row) for row in connection.execute(query)]


def _pass_by(connection: sa.Connection, chosen: Candidate) -> None:
    """Those that came earlier wait on. Rows that somebody else changes just now are left out: who waits for
    one with another in hand could wait in a circle.
    """
    j = t.jobs.c
    earlier = sa.select(j.id).where(j.state == "queued", j.place_in_line < chosen.line)
    query = sa.update(t.jobs).where(j.id.in_(earlier.with_for_update(skip_locked=True)))
    connection.execute(query.values(passed=j.passed + 1))


def _running(connection: sa.Connection) -> Mapping[str, int]:
    query = (
        sa.select(t.jobs.c.project_id, sa.func.count())
        .join(t.attempts, t.attempts.c.job_id == t.jobs.c.id)
        .where(t.attempts.c.state == "open")
        .group_by(t.jobs.c.project_id)
    )
    return {row[0]: row[1] for row in connection.execute(query)}


def _open(connection: sa.Connection, job: Job, machine: Machine, ram: int, vram: int) -> Attempt:
    values: dict[str, Any] = {
        "id": new_id(), "job_id": job.id, "number": job.attempts + 1, "fence": job.fence + 1,
        "worker": machine.name, "place": machine.place, "state": "open", "beat": 0,
        "ram_bytes": ram, "vram_bytes": vram, "signal": 0, "seconds": 0.0, "peak_bytes": {},
        "limit_bytes": {"ram": job.granted_ram or machine.ram_bytes, "vram": vram}, "last_events": [],
        "next": "",         "started": time.time(),
    }  # fmt: skip
    connection.execute(sa.insert(t.attempts).values(**values))
    return Attempt.model_validate(
        values | {"pid": None, "pid_began": None, "reason": None, "code": None, "ended": None}
    )

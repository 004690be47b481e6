"""The jobs in line, as those see them who look ahead: how many, how large, what a plan says of them.

Which of them begins is `admission`, and done by `claims.py`.
"""

from __future__ import annotations

import time

import sqlalchemy as sa

from caudal.core.messages import _
from caudal.service.ends import Ending
from caudal.service.records import Job
from caudal.service.store import rows
from caudal.service.store import tables as t
from caudal.service.store.engine import Database

IN_VIEW = 500
"""So many jobs in line are looked at for each that begins."""
_PLANNED_AHEAD = 20


class Line:
    """See each function; all raise `StoreAway` where the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def in_line(self) -> int:
        """How many jobs are in line, up to some hundreds: cheaper to ask than to claim in vain."""
        some = sa.select(t.jobs.c.id).where(t.jobs.c.state == "queued").limit(IN_VIEW).subquery()
        with self._database.reading() as connection:
            return int(connection.execute(sa.select(sa.func.count()).select_from(some)).scalar_one())

    def larger_than(self, ram_bytes: int, vram_bytes: int) -> list[tuple[str, int, int]]:
        """The jobs in line that need more of one or the other, and what they need."""
        j = t.jobs.c
        too_large = (j.ram_bytes > ram_bytes) | (j.vram_bytes > vram_bytes)
        query = sa.select(j.id, sa.func.coalesce(j.ram_bytes, 0), sa.func.coalesce(j.vram_bytes, 0))
        with self._database.reading() as connection:
            found = connection.execute(query.where(j.state == "queued", too_large).limit(IN_VIEW))
            return [(job_id, int(ram), int(vram)) for job_id, ram, vram in found]

    def unplanned(self) -> list[Job]:
        """The trainings in line for which all that they may hold is kept free, as long as nobody has planned
        them; in the order of their places.
        """
        j = t.jobs.c
        whole = j.ram_bytes.is_(None) | (j.ram_bytes == j.granted_ram)
        query = rows.jobs_query().where(j.state == "queued", j.verb == "train", j.attempts == 0, whole)
        with self._database.reading() as connection:
            return rows.many(connection, query.order_by(j.place_in_line).limit(_PLANNED_AHEAD), Job)

    def foresee(self, job: Job, ram_bytes: int, vram_bytes: int, granted_ram: int) -> None:
        """A plan says what a job in line will hold if it is given so much."""
        with self._database.writing() as connection:
            now = rows.job_row(connection, job.id, lock=True)
            if now.state == "queued" and now.attempts == job.attempts:
                rows.change(
                    connection, job.id, ram_bytes=ram_bytes, vram_bytes=vram_bytes, granted_ram=granted_ram
                )

    def say_next(self, job_id: str, text: str) -> None:
        """What will happen to a job in line, in other words than before."""
        j = t.jobs.c
        with self._database.reading() as connection:
            said = connection.execute(sa.select(j.next).where(j.id == job_id, j.state == "queued")).scalar()
        if said is None or said == text:
            return
        with self._database.writing() as connection:
            if rows.job_row(connection, job_id, lock=True).state == "queued":
                rows.change(connection, job_id, next=text)

    def refuse(self, job_id: str, ending: Ending) -> Job | None:
        """A job in line that can never begin is failed."""
        with self._database.writing() as connection:
            job = rows.job_row(connection, job_id, lock=True)
            if job.state != "queued":
                return None
            error = None if ending.error is None else ending.error.model_dump()
            return rows.move(
                connection, job, "failed", reason=ending.how, error=error, ended=time.time(),
                next=ending.error.hint if ending.error else "",
            )  # fmt: skip

    def wake(self, job_id: str, version: int) -> Job | None:
        """A job that waited is in line again; `None` where it is no longer the `version` that waited."""
        with self._database.writing() as connection:
            job = rows.job_row(connection, job_id, lock=True)
            if job.state != "waiting" or job.version != version:
                return None
            return rows.move(
                connection, job, "queued", queued=time.time(), next=_("It starts when there is room for it.")
            )

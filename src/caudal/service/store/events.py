"""What happened in jobs, in the order in which it can be read.

Who has seen number n asks for what came after it.
Written by `claims` and by whoever moves a job; here it is read, and forgotten when it is old.
"""

from __future__ import annotations

import time
from collections.abc import Collection

import sqlalchemy as sa

from caudal.service.records import StoredEvent
from caudal.service.states import ENDED
from caudal.service.store import rows
from caudal.service.store import tables as t
from caudal.service.store.engine import Database


class StoredEvents:
    """See each function; all raise `StoreAway` where the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def after(self, last_id: int, job_id: str | None = None, limit: int = 500) -> list[StoredEvent]:
        """The next events after number `last_id`, of one job or of all."""
        e = t.events.c
        query = sa.select(t.events).where(e.id > last_id).order_by(e.id).limit(rows.page(limit))
        if job_id is not None:
            query = query.where(e.job_id == job_id)
        with self._database.reading() as connection:
            return rows.many(connection, query, StoredEvent)

    def tail(self, job_id: str, number: int) -> list[StoredEvent]:
        """The last events of a job, in their order."""
        e = t.events.c
        query = sa.select(t.events).where(e.job_id == job_id).order_by(e.id.desc()).limit(rows.page(number))
        with self._database.reading() as connection:
            return rows.many(connection, query, StoredEvent)[::-1]

    def newest(self, last_id: int, job_id: str, kinds: Collection[str], number: int) -> list[StoredEvent]:
        """Of all that a job told after number `last_id`, the last of each of these kinds, in their order."""
        e = t.events.c
        place = sa.func.row_number().over(partition_by=e.kind, order_by=e.id.desc()).label("place")
        told = (e.job_id == job_id) & (e.id > last_id) & e.kind.in_(kinds)
        ranked = sa.select(e.id, place).where(told).subquery()
        query = sa.select(t.events).join(ranked, ranked.c.id == e.id).order_by(e.id)
        with self._database.reading() as connection:
            return rows.many(connection, query.where(ranked.c.place <= rows.page(number)), StoredEvent)

    def most(self, last_id: int, job_id: str, kind: str, key: str) -> int:
        """The largest `key` in the events of a kind that a job told after number `last_id`; 0 without any."""
        e = t.events.c
        query = sa.select(sa.func.max(sa.cast(e.body[key].as_string(), sa.BigInteger)))
        with self._database.reading() as connection:
            told = (e.job_id == job_id) & (e.id > last_id) & (e.kind == kind)
            return int(connection.execute(query.where(told)).scalar() or 0)

    def sweep(self, older_than_seconds: float, most: int = 5000) -> int:
        """Forget up to `most` events of jobs that ended so long ago; how many."""
        e, j = t.events.c, t.jobs.c
        old = j.ended < time.time() - older_than_seconds
        some = sa.select(e.id).join(t.jobs, j.id == e.job_id).where(j.state.in_(sorted(ENDED)), old)
        with self._database.writing() as connection:
            return connection.execute(sa.delete(t.events).where(e.id.in_(some.limit(most)))).rowcount

    def last_id(self, job_id: str | None = None) -> int:
        """The number of the last event, of a job or of all; 0 where there is none. One row is read."""
        with self._database.reading() as connection:
            if job_id is None:
                counters = t.counters.c
                query = sa.select(counters.value).where(counters.name == "events")
            else:
                query = sa.select(t.jobs.c.seen_event).where(t.jobs.c.id == job_id)
            found = connection.execute(query).scalar()
        if found is None:
            raise rows.missing(job_id or "events")
        return int(found)

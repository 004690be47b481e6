"""What all parts of the store do with rows: count, say, read one, read a page."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa

from caudal.core.config import Frozen
from caudal.core.messages import _
from caudal.service.errors import NotFound
from caudal.service.records import Job
from caudal.service.states import State, sources
from caudal.service.store import tables as t

R = TypeVar("R", bound=Frozen)
Said = tuple[str, float, Mapping[str, Any]]
"""Kind, time and body of an event."""

MOST_A_PAGE = 500


def count(connection: sa.Connection, name: str, by: int = 1) -> int:
    """Take the next `by` numbers of a counter; the last of them.

    The row stays locked until the transaction ends, so numbers are seen by others in ascending order.
    """
    query = sa.update(t.counters).where(t.counters.c.name == name)
    return int(
        connection.execute(
            query.values(value=t.counters.c.value + by).returning(t.counters.c.value)
        ).scalar_one()
    )


def say(connection: sa.Connection, job_id: str, attempt: int, said: Sequence[Said]) -> int:
    """Add events to a job whose row is locked already; the number of the last one."""
    assert said
    last = count(connection, "events", len(said))
    first = last - len(said) + 1
    rows = [
        {
            "id": first + i,
            "job_id": job_id,
            "attempt": attempt,
            "kind": kind,
            "time": when,
            "body": dict(body),
        }
        for i, (kind, when, body) in enumerate(said)
    ]
    connection.execute(sa.insert(t.events), rows)
    change(connection, job_id, seen_event=last)
    return last


def say_state(connection: sa.Connection, job: Job) -> None:
    """The event that a job is now where it is."""
    body = {
        "state": job.state,
        "reason": job.reason,
        "next": job.next,
        "attempt": job.attempts,
        "error": None if job.error is None else job.error.model_dump(),
    }
    say(connection, job.id, job.attempts, [("job_state", time.time(), body)])


def change(connection: sa.Connection, job_id: str, **values: Any) -> None:
    """Set columns of a job."""
    values["version"] = t.jobs.c.version + 1
    connection.execute(sa.update(t.jobs).where(t.jobs.c.id == job_id).values(**values))


def move(
    connection: sa.Connection,
    job: Job,
    to: State,
    **values: Any,
) -> Job | None:
    """Bring a job to another state if it is still as `job` says; `None` where somebody was first."""
    assert job.state in sources(to), f"{job.state} → {to}"
    same = (t.jobs.c.id == job.id) & (t.jobs.c.state == job.state) & (t.jobs.c.fence == job.fence)
    done = connection.execute(
        sa.update(t.jobs).where(same).values(state=to, version=t.jobs.c.version + 1, **values)
    )
    if done.rowcount != 1:
        return None
    moved = job_row(connection, job.id)
    say_state(connection, moved)
    return job_row(connection, job.id)


_JOB_COLUMNS = [t.jobs.c[name] for name in Job.model_fields]


def jobs_query() -> sa.Select[Any]:
    """All that a `Job` tells."""
    return sa.select(*_JOB_COLUMNS)


def job_row(connection: sa.Connection, job_id: str, lock: bool = False) -> Job:
    """A job; with `lock` nobody changes it before this transaction ends.

    Raises:
        NotFound: there is none of that name.
    """
    query = jobs_query().where(t.jobs.c.id == job_id)
    return one(connection, query.with_for_update() if lock else query, Job, job_id)


def one(connection: sa.Connection, query: sa.Select[Any], kind: type[R], what: str) -> R:
    """The one record that a query finds.

    Raises:
        NotFound: it finds none.
    """
    row = connection.execute(query).mappings().first()
    if row is None:
        raise missing(what)
    return kind.model_validate(dict(row))


def many(connection: sa.Connection, query: sa.Select[Any], kind: type[R]) -> list[R]:
    """The records that a query finds."""
    return [kind.model_validate(dict(row)) for row in connection.execute(query).mappings()]


def missing(what: str) -> NotFound:
    """There is no `what`."""
    return NotFound(
        _("There is nothing named {what}.").format(what=what), _("List what there is, and use an id from it.")
    )


def page(limit: int) -> int:
    """How many rows are given at once."""
    return max(1, min(limit, MOST_A_PAGE))

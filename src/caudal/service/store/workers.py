"""The machines that take jobs, as they told themselves. Who is out of reach is seen by `keeper.py`."""

from __future__ import annotations

import time
from typing import Any, Literal

import sqlalchemy as sa

from caudal.service.ids import new_id
from caudal.service.records import Worker
from caudal.service.store import rows
from caudal.service.store import tables as t
from caudal.service.store.claims import Machine
from caudal.service.store.engine import Database

_COLUMNS = [t.workers.c[name] for name in Worker.model_fields]


class Workers:
    """See each function; all raise `StoreAway` where the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def arrive(self, machine: Machine, pid: int, pid_began: int, queue: str) -> Worker:
        """A worker process is there; earlier ones of the same machine and place are gone."""
        now, w = time.time(), t.workers.c
        values: dict[str, Any] = {
            "id": new_id(), "name": machine.name, "place": machine.place, "pid": pid, "pid_began": pid_began,
            "queue": queue, "ram_bytes": machine.ram_bytes, "vram_bytes": machine.vram_bytes,
            "started": now, "seen": now, "beat": 0, "state": "here",
        }  # fmt: skip
        with self._database.writing() as connection:
            same = (w.name == machine.name) & (w.queue == queue) & (w.state != "gone")
            connection.execute(sa.update(t.workers).where(same).values(state="gone"))
            connection.execute(sa.insert(t.workers).values(**values))
        return Worker.model_validate({k: values[k] for k in Worker.model_fields})

    def beat(self, worker_id: str) -> None:
        """It is alive."""
        w = t.workers.c
        with self._database.writing() as connection:
            connection.execute(
                sa.update(t.workers)
                .where(w.id == worker_id)
                .values(beat=w.beat + 1, seen=time.time(), state="here")
            )

    def set_state(self, worker_id: str, state: Literal["away", "gone"], beat: int | None = None) -> None:
        """It was not heard of since `beat`, or has left."""
        w = t.workers.c
        same = w.id == worker_id if beat is None else (w.id == worker_id) & (w.beat == beat)
        with self._database.writing() as connection:
            connection.execute(sa.update(t.workers).where(same).values(state=state))

    def beats(self) -> dict[str, int]:
        """How often each worker that is not gone was heard of."""
        w = t.workers.c
        with self._database.reading() as connection:
            query = sa.select(w.id, w.beat).where(w.state != "gone")
            return {row[0]: row[1] for row in connection.execute(query)}

    def list(self, all: bool = False) -> list[Worker]:
        """Those that are here or away; with `all` those that left, too."""
        query = sa.select(*_COLUMNS).order_by(t.workers.c.id)
        if not all:
            query = query.where(t.workers.c.state != "gone")
        with self._database.reading() as connection:
            return rows.many(connection, query, Worker)

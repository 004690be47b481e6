"""The store: the one truth about jobs. SQLite or PostgreSQL; queues only carry hints.

A `Store` is a handful of small parts, each with its own file; all of them may be used from several threads.
"""

from __future__ import annotations

from types import TracebackType

import sqlalchemy as sa

from caudal.service.settings import Settings
from caudal.service.store.access import Audit, Keys, OnceOnly
from caudal.service.store.claims import Claims, Machine, Superseded
from caudal.service.store.engine import BUSY_SECONDS, Database
from caudal.service.store.events import StoredEvents
from caudal.service.store.jobs import Jobs
from caudal.service.store.line import Line
from caudal.service.store.projects import Datasets, Models, Projects, Runs
from caudal.service.store.workers import Workers

__all__ = ["Machine", "Store", "Superseded", "open_store"]


class Store:
    """All that the service knows."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.projects = Projects(database)
        self.datasets = Datasets(database)
        self.jobs = Jobs(database)
        self.claims = Claims(database)
        self.line = Line(database)
        self.events = StoredEvents(database)
        self.runs = Runs(database)
        self.models = Models(database)
        self.workers = Workers(database)
        self.keys = Keys(database)
        self.once = OnceOnly(database)
        self.audit = Audit(database)

    def ping(self) -> None:
        """See whether the database answers.

        Raises:
            StoreAway: it does not.
        """
        with self.database.reading() as connection:
            connection.execute(sa.text("SELECT 1"))

    def version(self) -> str:
        """The migration that the database is at; empty before the first."""
        from caudal.service.store.migrate import version

        return version(self.database)

    def close(self) -> None:
        """Let go of the database."""
        self.database.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_store(where: Settings | str, migrate: bool = True, busy_seconds: float = BUSY_SECONDS) -> Store:
    """Open the store of a service, or of a database URL; `migrate` brings its tables up to this version.

    A database that does not answer within `busy_seconds` is away.

    Raises:
        StoreAway: the database does not answer.
    """
    if isinstance(where, Settings):
        where.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        url = where.database_url()
    else:
        url = where
    database = Database(url, busy_seconds)
    if migrate:
        from caudal.service.store.migrate import upgrade

        upgrade(database)
    return Store(database)

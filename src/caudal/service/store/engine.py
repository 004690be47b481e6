"""The connection to the database: SQLite or PostgreSQL, and what each needs to be told.

Every failure of the database itself becomes `StoreAway`. Knows no table.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from caudal.core.messages import _
from caudal.service.errors import StoreAway

_WRITES = "caudal_writes"
BUSY_SECONDS = 5.0
_CACHE_KIB = 512


def full_url(url: str) -> sa.URL:
    """A URL with the driver that is used: psycopg 3 for PostgreSQL."""
    made = make_url(url)
    if made.drivername in ("postgresql", "postgres"):
        return made.set(drivername="postgresql+psycopg")
    return made


class Database:
    """One database; safe to use from several threads."""

    def __init__(self, url: str, busy_seconds: float = BUSY_SECONDS) -> None:
        self.url = full_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self._busy_seconds = busy_seconds
        self.engine = sa.create_engine(self.url, pool_pre_ping=not self.is_sqlite, **self._options())
        if self.is_sqlite:
            sa.event.listen(self.engine, "connect", self._set_up)
            sa.event.listen(self.engine, "begin", self._begin)

    def _options(self) -> dict[str, Any]:
        if self.is_sqlite:
            return {"connect_args": {"timeout": self._busy_seconds, "check_same_thread": False}}
        wait_ms = int(self._busy_seconds * 1000)
        return {
            "connect_args": {
                "connect_timeout": max(2, int(self._busy_seconds)),
                "options": f"-c lock_timeout={wait_ms} -c statement_timeout={2 * wait_ms}",
                "tcp_user_timeout": 2 * wait_ms,
            },
            "pool_timeout": 2 * self._busy_seconds,
            "pool_size": 10,
            "max_overflow": 20,
        }

    def _set_up(self, connection: Any, _record: object) -> None:
        connection.isolation_level = None  # transactions begin where `_begin` says
        # What is read is small, and the kernel keeps the file: a cache for each connection only grows.
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            f"cache_size=-{_CACHE_KIB}",
        ):
            connection.execute(f"PRAGMA {pragma}")

    def _begin(self, connection: sa.Connection) -> None:
        # A transaction that reads first and writes then could find somebody else in between, and fail.
        writes = connection.get_execution_options().get(_WRITES)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A transaction that sees one state of the database.

        Raises:
            StoreAway: the database does not answer.
        """
        with _translated(), self.engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A transaction that is kept as a whole or not at all.

        Raises:
            StoreAway: the database does not answer, is locked for too long, or has no room.
        """
        with _translated(), self.engine.connect() as plain:
            connection = plain.execution_options(**{_WRITES: True})
            with connection.begin():
                yield connection

    def close(self) -> None:
        """Let go of all connections."""
        self.engine.dispose()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (OperationalError, PoolTimeout) as error:
        raise _away(error) from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise _away(error) from error
        raise


def _away(error: Exception) -> StoreAway:
    why = str(getattr(error, "orig", None) or error).strip().splitlines()
    return StoreAway(
        _("The database does not answer: {why}.").format(why=why[0] if why else type(error).__name__),
        _("It is tried again; see whether it runs and has room."),
    )

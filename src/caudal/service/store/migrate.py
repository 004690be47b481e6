"""Brings the tables from one version to another, by the steps in `migrations/`; one process at a time."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from caudal.service.store.engine import Database

_FOLDER = Path(__file__).with_name("migrations")
_LOCK = 0x_CA0D_A1  # a number that nobody else locks in PostgreSQL


def upgrade(database: Database, to: str = "head") -> None:
    """Bring the tables up to a version."""
    from alembic import command

    with _alone(database) as connection:
        command.upgrade(_config(connection), to)


def downgrade(database: Database, to: str) -> None:
    """Bring the tables down to a version, `base` for none at all. What the later ones hold is lost."""
    from alembic import command

    with _alone(database) as connection:
        command.downgrade(_config(connection), to)


def version(database: Database) -> str:
    """The version of the tables; empty where there are none."""
    from alembic.migration import MigrationContext

    with database.reading() as connection:
        return MigrationContext.configure(connection).get_current_revision() or ""


def _config(connection: sa.Connection):  # type: ignore[no-untyped-def]  # alembic is loaded late
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_FOLDER))
    config.attributes["connection"] = connection
    return config


@contextmanager
def _alone(database: Database) -> Iterator[sa.Connection]:
    if database.is_sqlite and database.url.database not in (None, "", ":memory:"):
        with Path(f"{database.url.database}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            with database.writing() as connection:
                yield connection
        return
    with database.writing() as connection:
        if not database.is_sqlite:
            connection.execute(sa.text("SET LOCAL lock_timeout = 0"))
            connection.execute(sa.text("SET LOCAL statement_timeout = 0"))
            connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
        yield connection

"""A store on each database, and a service whose verbs take no time."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from caudal.service.records import Project
from caudal.service.settings import Settings
from caudal.service.store import Store, open_store
from caudal.service.store import tables as t
from tests.service.back.servers import Postgres, Redis

VERB = Path(__file__).with_name("verb.py")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    server = Postgres()
    try:
        yield server.start()
    finally:
        server.remove()


@pytest.fixture
def redis() -> Iterator[Redis]:
    server = Redis()
    try:
        yield server.start()
    finally:
        server.kill()


def settings_for(home: Path, **more: object) -> Settings:
    """A service in `home` that sees one GiB and runs the program of `verb.py`."""
    given = {
        "home": home, "ram": "1GiB", "vram": 0, "worker_name": "here", "lease_seconds": 2.0,
        "program": (sys.executable, str(VERB)),
    } | more  # fmt: skip
    return Settings.model_validate(given)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_for(tmp_path / "home")


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An empty store."""
    url = f"sqlite:///{tmp_path / 'store.db'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres").url
    with open_store(url) as opened:
        yield opened
        empty(opened)


def empty(store: Store) -> None:
    """Remove all rows, and begin all counts again."""
    with store.database.writing() as connection:
        for table in reversed(t.METADATA.sorted_tables):
            if table is not t.counters:
                connection.execute(sa.delete(table))
        connection.execute(sa.update(t.counters).values(value=0))


@pytest.fixture
def project(store: Store) -> Project:
    return store.projects.create("one")

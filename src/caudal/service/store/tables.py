"""The tables. What they look like in an older version is in `migrations/`; a test compares the two."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
)

METADATA = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _id() -> Column[str]:
    return Column("id", String(26), primary_key=True)


def _of(table: str, unique: bool | None = None, index: bool | None = None) -> Column[str]:
    name = f"{table.removesuffix('s')}_id"
    key = ForeignKey(f"{table}.id")
    return Column(name, String(26), key, nullable=False, unique=unique, index=index)


def _json(name: str, nullable: bool = False) -> Column[object]:
    return Column(name, JSON(none_as_null=True), nullable=nullable)


projects = Table(
    "projects",
    METADATA,
    _id(),
    Column("name", String(200), nullable=False, unique=True),
    Column("created", Float, nullable=False),
)

datasets = Table(
    "datasets",
    METADATA,
    _id(),
    _of("projects", index=True),
    Column("name", String(200), nullable=False),
    Column("kind", String(10), nullable=False),
    Column("path", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    _json("facts"),
    Column("created", Float, nullable=False),
    sa.UniqueConstraint("project_id", "name"),
)

jobs = Table(
    "jobs",
    METADATA,
    _id(),
    Column("number", BigInteger, nullable=False, unique=True),
    Column("version", Integer, nullable=False),
    _of("projects"),
    Column("name", String(200), nullable=False),
    Column("verb", String(20), nullable=False),
    _json("work"),
    Column("state", String(20), nullable=False),
    Column("reason", String(20)),
    _json("error", nullable=True),
    Column("next", Text, nullable=False),
    _json("result", nullable=True),
    Column("priority", Integer, nullable=False),
    Column("place_in_line", BigInteger, nullable=False),
    Column("passed", Integer, nullable=False),
    Column("created", Float, nullable=False),
    Column("queued", Float, nullable=False),
    Column("started", Float),
    Column("ended", Float),
    Column("limit_seconds", Float),
    Column("spent_seconds", Float, nullable=False),
    Column("wait_seconds", Float, nullable=False),
    Column("ram_bytes", BigInteger),
    Column("vram_bytes", BigInteger),
    Column("granted_ram", BigInteger),
    _json("peak_bytes"),
    _json("limit_bytes"),
    Column("attempts", Integer, nullable=False),
    Column("fence", Integer, nullable=False),
    Column("cancel", Boolean, nullable=False),
    Column("smaller", Boolean, nullable=False),
    Column("memory_retries", Integer, nullable=False),
    Column("lost_retries", Integer, nullable=False),
    Column("run_id", String(26)),
    Column("seen_event", BigInteger, nullable=False),
    _json("last_events"),
    Column("tail_offset", BigInteger, nullable=False),
    Index("ix_jobs_state_place_in_line", "state", "place_in_line"),
    Index("ix_jobs_project_id_number", "project_id", "number"),
)

attempts = Table(
    "attempts",
    METADATA,
    _id(),
    _of("jobs"),
    Column("number", Integer, nullable=False),
    Column("fence", Integer, nullable=False),
    Column("worker", String(255), nullable=False),
    Column("place", String(100), nullable=False),
    Column("pid", Integer),
    Column("pid_began", BigInteger),
    Column("state", String(10), nullable=False),
    Column("beat", BigInteger, nullable=False),
    Column("ram_bytes", BigInteger, nullable=False),
    Column("vram_bytes", BigInteger, nullable=False),
    Column("reason", String(20)),
    Column("signal", Integer, nullable=False),
    Column("code", Integer),
    Column("seconds", Float, nullable=False),
    _json("peak_bytes"),
    _json("limit_bytes"),
    _json("last_events"),
    Column("next", Text, nullable=False),
    Column("started", Float, nullable=False),
    Column("ended", Float),
    sa.UniqueConstraint("job_id", "fence"),
    Index("ix_attempts_state", "state"),
)

runs = Table(
    "runs",
    METADATA,
    _id(),
    _of("jobs", unique=True),
    _of("projects", index=True),
    Column("verb", String(20), nullable=False),
    Column("folder", Text, nullable=False),
    Column("task", String(50)),
    _json("metrics"),
    _json("result", nullable=True),
    Column("created", Float, nullable=False),
    Column("ended", Float),
)

models = Table(
    "models",
    METADATA,
    _id(),
    _of("runs", unique=True),
    _of("projects", index=True),
    Column("folder", Text, nullable=False),
    Column("task", String(50)),
    _json("metrics"),
    Column("created", Float, nullable=False),
)

events = Table(
    "events",
    METADATA,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    _of("jobs"),
    Column("attempt", Integer, nullable=False),
    Column("kind", String(40), nullable=False),
    Column("time", Float, nullable=False),
    _json("body"),
    Index("ix_events_job_id_id", "job_id", "id"),
)

counters = Table(
    "counters",
    METADATA,
    Column("name", String(20), primary_key=True),
    Column("value", BigInteger, nullable=False),
)

workers = Table(
    "workers",
    METADATA,
    _id(),
    Column("name", String(255), nullable=False, index=True),
    Column("place", String(100), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("pid_began", BigInteger, nullable=False),
    Column("queue", String(20), nullable=False),
    Column("ram_bytes", BigInteger, nullable=False),
    Column("vram_bytes", BigInteger, nullable=False),
    Column("started", Float, nullable=False),
    Column("seen", Float, nullable=False),
    Column("beat", BigInteger, nullable=False),
    Column("state", String(10), nullable=False),
)

api_keys = Table(
    "api_keys",
    METADATA,
    _id(),
    Column("name", String(200), nullable=False),
    _json("scopes"),
    Column("hash", String(128), nullable=False, unique=True),
    Column("created", Float, nullable=False),
    Column("expires", Float),
    Column("revoked", Float),
    Column("last_used", Float),
)

idempotency_keys = Table(
    "idempotency_keys",
    METADATA,
    Column("owner", String(100), primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("fingerprint", String(128), nullable=False),
    Column("status", Integer, nullable=False),
    _json("body", nullable=True),
    Column("job_id", String(26)),
    Column("created", Float, nullable=False),
)

audit = Table(
    "audit",
    METADATA,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("time", Float, nullable=False),
    Column("actor", String(200), nullable=False),
    Column("action", String(100), nullable=False),
    Column("object", String(300), nullable=False),
    Column("address", String(100), nullable=False),
    _json("detail"),
)

COUNTERS = ("events", "jobs", "line")
"""Numbers that ascend in the order in which transactions are kept: a plain sequence would not."""

"""What the service is told when it starts, one record for all its processes.

They pass it on by the environment, because a command line is read by everybody on the machine and a database
URL holds a password. How the web side is set up (hosts, keys, limits of uploads) is not here.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, field_serializer, field_validator

from caudal.core.config import Frozen
from caudal.core.units import Bytes

VARIABLE = "CAUDAL_SERVICE"


def default_home() -> Path:
    """Where the service keeps its state if nobody says: `$XDG_STATE_HOME/caudal`."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "caudal"


class Settings(Frozen):
    """See each key; `home` has to be on a disk that all workers see under the same name."""

    home: Path = Field(default_factory=default_home)
    database: SecretStr = SecretStr("")
    """A URL; empty for SQLite below `home`."""
    queue: Literal["embedded", "celery"] = "embedded"
    broker: SecretStr = SecretStr("")
    """Celery's Redis, as `redis://…`."""
    ram: Bytes | None = None
    """What all jobs of this machine may hold together; 80 % of its smallest limit if it is not given."""
    vram: Bytes | None = None
    """The same of its GPU; 90 % of what is free."""
    worker_name: str = Field(default_factory=socket.gethostname)
    most_jobs: int = Field(default=8, ge=1)
    """At a time, on this machine."""
    celery_workers: int = Field(default=1, ge=1)
    """Celery processes of this machine, each for one job at a time."""
    lease_seconds: float = Field(default=10.0, gt=0)
    """A supervisor that was not heard of for so long is out of reach; after three times as long, lost."""
    cancel_seconds: float = Field(default=5.0, gt=0)
    """What a job gets to write its checkpoint after it was asked to end; it is killed half as long later."""
    longest_seconds: float = Field(default=30 * 86400.0, gt=0)
    """No time limit may be above; the broker redelivers later than that."""
    memory_retries: int = Field(default=2, ge=0)
    """How often a job that ran out of memory is tried on a smaller plan."""
    lost_retries: int = Field(default=3, ge=0)
    """How often a job goes on whose process or machine was taken from it."""
    once_days: float = Field(default=30.0, gt=0)
    """How long it is known what was asked under which Idempotency-Key."""
    history_days: float = Field(default=365.0, gt=0)
    """How long the audit log, and the events of jobs that have ended, are kept. Jobs and runs stay."""
    program: tuple[str, ...] = (sys.executable, "-m", "caudal")
    """The command whose verbs are run."""
    tracking: str = ""
    """An MLflow server, as `http://…`; empty for none."""

    @field_validator("home")
    @classmethod
    def _whole(cls, home: Path) -> Path:
        return home.expanduser().absolute()

    @field_serializer("database", "broker", when_used="json")
    def _told(self, secret: SecretStr) -> str:
        return secret.get_secret_value()

    def database_url(self) -> str:
        """Where the store is."""
        return self.database.get_secret_value() or f"sqlite:///{self.home / 'caudal.db'}"

    def broker_url(self) -> str:
        """Where the broker is."""
        return self.broker.get_secret_value()

    def jobs_folder(self) -> Path:
        """What jobs write; a folder for each."""
        return self.home / "jobs"

    def job_folder(self, job_id: str) -> Path:
        """One job's: its run, its log, its fence."""
        return self.jobs_folder() / job_id

    def run_folder(self, job_id: str) -> Path:
        """What its verb writes."""
        return self.job_folder(job_id) / "run"

    def environment(self) -> dict[str, str]:
        """What a child process needs to know all this."""
        return {VARIABLE: self.model_dump_json()}

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """What the parent process said.

        Raises:
            KeyError: it said nothing.
        """
        return cls.model_validate_json(environment[VARIABLE])

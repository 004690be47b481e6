"""Real servers on loopback for the time of a test: PostgreSQL as a user without rights, Redis."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

_WAIT_SECONDS = 30.0


def missing(reason: str) -> None:
    """Skip with the reason; where everything has to be tested, fail."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def free_port() -> int:
    """A port of loopback that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(ready: Callable[[], Any], seconds: float = _WAIT_SECONDS, what: str = "") -> Any:
    """Look again and again until there is something to see; fails where there is nothing in time."""
    end = time.monotonic() + seconds
    while not (found := ready()):
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.05)
    return found


class Redis:
    """One Redis without files."""

    def __init__(self) -> None:
        program = shutil.which("redis-server")
        if program is None:
            missing("redis-server is not installed")
            raise AssertionError
        self._program, self.port = program, free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Redis:
        options = {"port": str(self.port), "bind": "127.0.0.1", "save": "", "appendonly": "no"}
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        self._process = subprocess.Popen([self._program, *words], stdout=subprocess.DEVNULL)
        until(self._answers, what="Redis answers")
        return self

    def client(self) -> Any:
        import redis

        return redis.Redis(port=self.port, socket_timeout=2)

    def _answers(self) -> bool:
        import redis

        try:
            return bool(self.client().ping())
        except redis.RedisError:
            return False

    def kill(self) -> None:
        """As a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class Postgres:
    """One PostgreSQL with an empty database."""

    def __init__(self, durable: bool = False) -> None:
        homes = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
        if not homes:
            missing("PostgreSQL is not installed")
            raise AssertionError
        self._bin, self.port = homes[-1].parent, free_port()
        self._fsync = "on" if durable else "off"
        self.folder = Path(tempfile.mkdtemp(prefix="caudal-pg-"))
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:  # the server refuses to run with rights
            self._as = {"user": "postgres", "group": "postgres", "extra_groups": []}
            shutil.chown(self.folder, "postgres", "postgres")
        self.url = f"postgresql://caudal@127.0.0.1:{self.port}/postgres"
        self._process: subprocess.Popen[bytes] | None = None
        self._run([self._bin / "initdb", "-D", self._data, "-U", "caudal", "-A", "trust", "-N", "--no-locale",
                   "-E", "UTF8"])  # fmt: skip

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def _run(self, command: list[Any]) -> None:
        done = subprocess.run(
            [str(word) for word in command], cwd=self.folder, capture_output=True, text=True, **self._as
        )
        assert done.returncode == 0, done.stderr

    def start(self) -> Postgres:
        command = [
            str(self._bin / "postgres"), "-D", str(self._data), "-p", str(self.port), "-k", str(self.folder),
            "-c", "listen_addresses=127.0.0.1", "-c", f"fsync={self._fsync}", "-c", "max_connections=60",
            "-c", "logging_collector=off",
        ]  # fmt: skip
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log, **self._as)
        until(self._answers, what="PostgreSQL answers")
        return self

    def _answers(self) -> bool:
        import psycopg

        try:
            psycopg.connect(self.url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def kill(self) -> None:
        """As a crash would: it and all of its processes."""
        if self._process is None:
            return
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        self._process.kill()
        self._process.wait()
        for child in children:  # they see it and go; a new one may only start when they have
            until(lambda pid=child: not Path(f"/proc/{pid}").exists(), what="PostgreSQL has gone")
        self._process = None
        (self._data / "postmaster.pid").unlink(missing_ok=True)

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

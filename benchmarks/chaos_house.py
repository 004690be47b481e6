"""A service whose every process may be killed and started again: server, worker, Redis, PostgreSQL, jobs.

All of its processes see a wall clock that can be moved (a `sitecustomize` that adds what a file says).
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.service.back.servers import Postgres, Redis, until

from caudal.service.place import MARK, members
from caudal.service.records import Attempt, Job
from caudal.service.settings import Settings
from caudal.service.store import open_store

ROOT = Path(__file__).resolve().parents[1]
CLOCK = """
import os, time
real, path = time.time, os.environ.get("CAUDAL_CHAOS_CLOCK")
def moved():
    try:
        with open(path) as file:
            return real() + float(file.read() or 0)
    except (OSError, ValueError):
        return real()
if path:
    time.time = moved
"""


class ChaosHouse:
    """One service in `folder`; with a broker it runs on Celery and PostgreSQL. `group` is a memory group."""

    def __init__(self, folder: Path, celery: bool, group: Path | None = None, **settings: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.celery, self.group, self.clock = celery, group, folder / "clock"
        (folder / "site").mkdir(exist_ok=True)
        (folder / "site" / "sitecustomize.py").write_text(CLOCK)
        self.redis, self.postgres = (Redis(), Postgres()) if celery else (None, None)
        where = (
            {"queue": "celery", "broker": self.redis.url, "database": self.postgres.url}
            if self.redis and self.postgres
            else {}
        )
        self.settings = Settings.model_validate(
            {
                "home": folder / "home",
                "ram": "2GiB",
                "vram": 0,
                "worker_name": folder.name,
                "lease_seconds": 2.0,
            }
            | where
            | settings
        )
        self.server: subprocess.Popen[str] | None = None
        self.worker: subprocess.Popen[bytes] | None = None
        self._env = os.environ | self.settings.environment() | {
            "PYTHONPATH": os.pathsep.join(
                filter(None, [str(folder / "site"), str(ROOT), os.environ.get("PYTHONPATH", "")])
            ),
            "CAUDAL_CHAOS_CLOCK": str(self.clock),
        }  # fmt: skip

    def start(self) -> ChaosHouse:
        if self.redis and self.postgres:
            self.redis.start()
            self.postgres.start()
        self.store = open_store(self.settings)
        self.project = self.store.projects.create("chaos").id
        self.start_server()
        if self.celery:
            self.start_worker()
        until(lambda: [w for w in self.store.workers.list() if w.state == "here"], 60, "a worker is there")
        return self

    def _enter(self) -> Callable[[], None] | None:
        if self.group is None:
            return None
        group = self.group
        return lambda: (group / "cgroup.procs").write_text("0") and None

    def start_server(self) -> None:
        self.server = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.chaos_server"],
            cwd=ROOT, env=self._env, stdout=subprocess.PIPE, text=True, start_new_session=True,
            stderr=subprocess.DEVNULL, preexec_fn=self._enter(),
        )  # fmt: skip
        assert self.server.stdout
        assert self.server.stdout.readline() == "up\n"

    def start_worker(self) -> None:
        self.worker = subprocess.Popen(
            [sys.executable, "-m", "caudal.service.worker", "minds"],
            env=self._env, start_new_session=True, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def close(self) -> None:
        for process in (self.worker, self.server):
            if process is not None:
                process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(60)
                process.kill()
                process.wait()
        for pid in self.ours():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.store.close()
        if self.redis and self.postgres:
            self.redis.kill()
            self.postgres.remove()

    def keep(self, job: Job) -> None:
        """Leave what a job wrote where somebody can look at it: in `CAUDAL_CHAOS_KEEP`, if that is set."""
        if (kept := os.environ.get("CAUDAL_CHAOS_KEEP")) is not None:
            shutil.copytree(self.settings.job_folder(job.id), Path(kept) / job.id)
            told = [self.store.jobs.get(job.id), *self.store.jobs.attempts(job.id)]
            (Path(kept) / job.id / "store.json").write_text("\n".join(r.model_dump_json() for r in told))

    def ours(self) -> list[int]:
        """Every process that was started with this house's settings or clock."""
        mark, found = f"CAUDAL_CHAOS_CLOCK={self.clock}".encode(), []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with suppress(OSError):
                    if mark in (entry / "environ").read_bytes().split(b"\0"):
                        found.append(int(entry.name))
        return found

    def attempt(self, job: Job) -> Attempt | None:
        """The one that is open and has its supervisor."""
        found = [a for a in self.store.jobs.attempts(job.id) if a.state == "open" and a.pid]
        return found[-1] if found else None

    def work_of(self, attempt: Attempt) -> int | None:
        """The first process of the verb: the child of its supervisor."""
        assert attempt.pid
        for pid in members(attempt.id):
            with suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
                if int(fields[1]) == attempt.pid:
                    return pid
        return None

    def worker_pids(self) -> list[int]:
        """The embedded worker, or the worker and its Celery; never a supervisor."""
        found = []
        for pid in self.ours():
            with suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes()
                name = Path(f"/proc/{pid}/comm").read_text().strip()
                wanted = (b"celery_app", b"minds") if self.celery else (b"takes",)
                if name != "caudal-attempt" and any(word in words for word in wanted):
                    found.append(pid)
        return found


class Doubles(threading.Thread):
    """Looks ten times a second whether two attempts at one job are alive at once."""

    def __init__(self, house: ChaosHouse) -> None:
        super().__init__(daemon=True)
        self._house, self._stop_now = house, threading.Event()
        self.found: set[str] = set()

    def run(self) -> None:
        while not self._stop_now.wait(0.1):
            alive: dict[str, set[bytes]] = {}
            for pid in self._house.ours():
                with suppress(OSError):
                    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                    out = next((word for word in words if word.startswith(b"--out=")), None)
                    env = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
                    mark = next((row for row in env if row.startswith(f"{MARK}=".encode())), None)
                    if (
                        out
                        and mark
                        and Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
                    ):
                        alive.setdefault(out.decode(), set()).add(mark)
            self.found |= {out for out, marks in alive.items() if len(marks) > 1}

    def stop(self) -> None:
        self._stop_now.set()
        self.join()

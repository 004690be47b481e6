"""A whole service without its web side: store, queue, and a worker where the queue wants one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from caudal.service.place import is_alive
from caudal.service.queues import open_queue
from caudal.service.records import Attempt, Job
from caudal.service.settings import Settings
from caudal.service.states import ENDED
from caudal.service.store import open_store
from caudal.service.work import TrainWork
from tests.service.back.servers import Postgres, until

WORKER = [sys.executable, "-m", "caudal.service.worker", "minds"]


class House:
    """`start` brings it up, `stop` down, `crash` kills it as a power cut of its server would."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.store = open_store(settings)
        self.project = self.store.projects.create("one").id
        self.worker: subprocess.Popen[bytes] | None = None

    def start(self) -> House:
        self.queue = open_queue(self.settings)
        self.queue.start()
        if self.settings.queue == "celery":
            self.start_worker()
        until(lambda: [w for w in self.store.workers.list() if w.state == "here"], what="a worker is there")
        return self

    def start_worker(self) -> None:
        env = os.environ | self.settings.environment()
        self.worker = subprocess.Popen(WORKER, env=env, start_new_session=True)

    def stop(self) -> None:
        if self.worker is not None:
            self.worker.terminate()
            self.worker.wait(60)
        self.queue.stop()

    def close(self) -> None:
        with suppress(AttributeError):
            self.stop()
        for attempt in self.store.claims.open_attempts():
            kill(attempt)
        self.store.close()

    def submit(self, *task: str, ram: str = "100MiB", **more: object) -> Job:
        name, *words = task
        work = TrainWork(task=name, data=tuple(words), ram=ram, device="cpu")
        job, _new = self.store.jobs.submit(self.project, work, **more)  # type: ignore[arg-type]
        self.queue.announce(job.id)
        return job

    def get(self, job: Job) -> Job:
        return self.store.jobs.get(job.id)

    def reaches(self, job: Job, *states: str, seconds: float = 30.0) -> Job:
        """Wait for one of some states."""

        def there() -> Job | None:
            now = self.get(job)
            return now if now.state in states else None

        try:
            found: Job = until(there, seconds, f"{states}")
        except AssertionError:
            folder = self.settings.job_folder(job.id)
            print(self.get(job), self.store.jobs.attempts(job.id))
            for path in folder.glob("*.txt"):
                print(path.name, path.read_text()[-2000:])
            raise
        return found

    def ends(self, job: Job, seconds: float = 30.0) -> Job:
        return self.reaches(job, *ENDED, seconds=seconds)

    def attempt(self, job: Job) -> Attempt:
        return self.store.jobs.attempts(job.id)[-1]

    def works(self, job: Job, steps: int = 1) -> int:
        """Wait until the verb has done some steps; its process."""
        done = self.settings.run_folder(job.id) / "step"
        until(lambda: done.exists() and done.read_text() and int(done.read_text()) >= steps, what="steps")
        return int(self.starts(job)[-1].split()[0])

    def starts(self, job: Job) -> list[str]:
        """A line for each time that the verb was started."""
        path = self.settings.job_folder(job.id) / "starts"
        return path.read_text().splitlines() if path.exists() else []

    def steps(self, job: Job) -> list[int]:
        events = self.store.events.after(0, job.id)
        return [event.body["step"] for event in events if event.kind == "step_done"]


def kill(attempt: Attempt) -> None:
    """Its supervisor, if it lives."""
    if attempt.pid and attempt.pid_began and is_alive(attempt.pid, attempt.pid_began):
        os.kill(attempt.pid, signal.SIGKILL)


def alive(pid: int) -> bool:
    """Whether a process is there that has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except OSError:
        return False


def empty_database(postgres: Postgres) -> str:
    """The URL of a PostgreSQL without rows."""
    from tests.service.back.conftest import empty

    with open_store(postgres.url) as store:
        empty(store)
    return postgres.url

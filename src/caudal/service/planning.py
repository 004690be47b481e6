"""Asks the planner what trainings in line will hold, so that they wait for no more room than that.

`caudal plan` in a child, one at a time, for what has no plan yet and does not fit as it is. The answer goes
to the store: a smaller need, or a refusal that names the least. Decides nothing about who begins
(`admission.py`). What the child itself takes is small, and comes from what a machine does not give to jobs.
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caudal.core import confined
from caudal.core.units import Bytes
from caudal.memory.meters import charged_bytes
from caudal.runs.supervisor import Child
from caudal.runs.watched import WATCHER_BYTES
from caudal.service.ends import Ending
from caudal.service.naming import how_of, last_told, said
from caudal.service.records import Job
from caudal.service.settings import VARIABLE, Settings
from caudal.service.store import Machine, Store
from caudal.service.work import NICENESS, TrainWork

_PATIENCE_SECONDS = 1.0
"""What has been in line for less may begin at once."""
_MOST_SECONDS = 120.0
_REFUSES = ("does_not_fit", "data")


@dataclass
class _Asked:
    job: Job
    child: Child
    output: Path
    began: float


class Planning:
    """Of one machine. Only for a process with one thread; `close` ends the child."""

    def __init__(self, store: Store, settings: Settings, machine: Machine) -> None:
        self._store, self._settings, self._machine = store, settings, machine
        self._asked: _Asked | None = None
        self._seen: dict[str, float] = {}
        self._known: set[str] = set()

    def tend(self) -> None:
        """Hear of the child, and start the next; call it while jobs are in line, often.

        Raises:
            StoreAway: try again.
        """
        if self._asked is not None:
            self._hear(self._asked)
        if self._asked is None:
            self._ask()

    def close(self) -> None:
        """End the child."""
        if self._asked is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._asked.child.process.pid, signal.SIGKILL)
            self._asked.child.process.wait()
            self._asked.output.unlink(missing_ok=True)
            self._asked = None

    def _ask(self) -> None:
        now = time.monotonic()
        waiting = self._store.line.unplanned()
        self._known &= {job.id for job in waiting}
        self._seen = {job.id: self._seen.get(job.id, now) for job in waiting}
        for job in waiting:
            if job.id not in self._known and now - self._seen[job.id] >= _PATIENCE_SECONDS:
                self._start(job)
                return

    def _start(self, job: Job) -> None:
        work = job.work
        assert isinstance(work, TrainWork), "others have no plan"
        budget = Bytes(job.granted_ram or self._machine.ram_bytes)
        words = work.model_copy(update={"ram": budget}).plan_words()
        handle, name = tempfile.mkstemp(prefix="caudal-plan-")
        # The run will be watched, and what watches it is a part of what it holds.
        env = {VARIABLE: "", WATCHER_BYTES: str(int(charged_bytes()))}
        env |= {} if work.reads is None else confined.environment(work.reads)
        with os.fdopen(handle, "wb") as output, open(os.devnull, "wb") as log:
            child = Child(
                [*self._settings.program, *words],
                env,
                dies_with=signal.SIGKILL,
                output=output,
                log=log,
                niceness=NICENESS,
            )
        self._asked = _Asked(job, child, Path(name), time.monotonic())

    def _hear(self, asked: _Asked) -> None:
        if asked.child.process.poll() is None:
            if time.monotonic() - asked.began < _MOST_SECONDS:
                return
            with suppress(ProcessLookupError):
                os.killpg(asked.child.process.pid, signal.SIGKILL)
            asked.child.process.wait()
        told = last_told(asked.output) or {}
        self._tell(asked.job, told)
        self._known.add(asked.job.id)
        asked.output.unlink(missing_ok=True)
        self._asked = None

    def _tell(self, job: Job, told: dict[str, Any]) -> None:
        """What is not understood changes nothing: the job waits for room for all that it may hold."""
        error, predicted = told.get("error"), told.get("predicted_bytes")
        if isinstance(error, dict):
            how = how_of(error)
            # Without a budget of its own a job may fit on a larger machine.
            ours = job.granted_ram is not None or self._store.database.is_sqlite
            if how in _REFUSES and ours:
                self._store.line.refuse(job.id, Ending(how=how, error=said(error)))
        elif isinstance(predicted, dict):
            granted = job.granted_ram or self._machine.ram_bytes
            ram, vram = int(predicted.get("ram", granted)), int(predicted.get("vram", 0))
            self._store.line.foresee(job, min(ram, granted), vram, granted)

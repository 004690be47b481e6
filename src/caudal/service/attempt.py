"""One attempt at a job: the supervising process, parent of the work and small beside it.

It starts the verb, is heard of in the store, carries events, and hears of cancelling, of time limits and of
having been superseded; it ends the work when it must, waits until every process is gone, and names the end.
It decides nothing about the job (`ends.py`), and touches no data.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
import tomllib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from caudal.core import confined
from caudal.core.errors import CaudalError
from caudal.core.files import write_whole
from caudal.memory.meters import charged_bytes
from caudal.runs.supervisor import Child
from caudal.runs.watched import DEADLINE, EVENTS, FENCE, SMALLER_PLAN, WATCHER_BYTES
from caudal.service import fence
from caudal.service.ends import Ending
from caudal.service.errors import StoreAway
from caudal.service.naming import Left, last_told, name, tail, told_in
from caudal.service.place import MARK, began, end_members
from caudal.service.planned import planned_bytes
from caudal.service.records import Attempt, Job, Problem
from caudal.service.settings import VARIABLE, Settings
from caudal.service.stopping import Stopping
from caudal.service.store import Store, Superseded, open_store
from caudal.service.tail import NAME, Tail, begin_anew
from caudal.service.tracking import Reporter
from caudal.service.work import NICENESS, WORK_VARIABLE, TrainWork, Work

T = TypeVar("T")

TICK_SECONDS = 0.2
_LOOK_SECONDS = 0.5
_SETTLE_SECONDS = 2.0  # for a supervisor elsewhere to see that its folder was taken
_GONE_SECONDS = 0.05
_PATIENCE_SECONDS = 1.0  # with a store that is away: meanwhile nobody looks at the clock
_ODD_BYTES = 64 * 1024


class Supervisor:
    """Of one attempt. Nothing here waits for the store: where it is away, work and limits go on."""

    def __init__(self, store: Store, settings: Settings, job: Job, attempt: Attempt) -> None:
        self.store, self.settings, self.job, self.attempt = store, settings, job, attempt
        self.folder = settings.job_folder(job.id)
        self.run = settings.run_folder(job.id)
        self.reporter = Reporter(settings, job) if settings.tracking else None
        listen = {} if self.reporter is None else {"listen": self.reporter.tell}
        self.tail = Tail(store, attempt, self.run / NAME, **listen)
        self.peak: dict[str, int] = {}
        self.plan_of = 0
        self.stop_asked = False
        self.began = time.monotonic()
        self._next_look = self._next_beat = 0.0

    def supervise(self) -> None:
        """From the fence to the name of the end; returns when it is in the store.

        Raises:
            Superseded, Overtaken: somebody else has the job; nothing of this one is left alive.
        """
        try:
            elsewhere = fence.take(self.folder, self.attempt.fence, self.attempt.place)
            if elsewhere:
                time.sleep(_SETTLE_SECONDS)
            ending = self._work()
        except (CaudalError, OSError) as error:  # no room for a log, no right to write: the work never began
            ending = self._unable(error)
        self._tell(ending)

    def _work(self) -> Ending:
        if not self.job.work.resumes:
            begin_anew(self.run)
        if (found := self._finished_before()) is not None:
            self._try(lambda: self.store.claims.running(self.attempt, self.run, self._task()))
            return found
        if self.job.cancel:
            return self._ending("cancelled")
        left = self._seconds_left()
        if left is not None and left <= 0:
            return self._ending(
                "timeout", error=Problem(code="timeout", message="The time limit was reached.")
            )
        output, log = self.folder / f"stdout-{self.attempt.number}.txt", self.folder / "log.txt"
        with output.open("wb") as output_file, log.open("ab") as log_file:
            log_start = log_file.tell()
            child = Child(
                self._command(),
                self._environment(left),
                dies_with=signal.SIGKILL,
                output=output_file,
                log=log_file,
                niceness=NICENESS,
            )
        if self.reporter is not None:
            self.reporter.start()  # not earlier: the work was started by a process with one thread
        self.began = time.monotonic()
        self._try(lambda: self.store.claims.running(self.attempt, self.run, self._task()))
        # A training ends by itself at its time limit, with a checkpoint.
        writing = self._is_writing if self.job.work.verb == "train" else None
        stopping = Stopping(
            child.process,
            self.settings.cancel_seconds,
            left,
            writing,
            step_seconds=self.tail.step_seconds,
        )
        try:
            self._watch(child, stopping)
            self._check_fence()
        except (Superseded, fence.Overtaken):
            self._until_gone()
            raise
        process = child.ending()
        self._until_gone()
        self._try(self.tail.carry_all)
        left_behind = Left(
            process,
            last_told(output),
            tail(log, log_start),
            stopping.asked,
            child.saw_oom_kill(),
            has_no_room(self.folder),
        )
        how, problem = name(left_behind)
        told = left_behind.told if how == "succeeded" else None
        self._saw(ram=int(process.resident) if not self.peak.get("ram") else 0)
        return self._ending(
            how, process.signal, None if process.signal else process.code, result=told, error=problem
        )

    def _watch(self, child: Child, stopping: Stopping) -> None:
        """Until the work's first process has ended."""
        handle = os.pidfd_open(child.process.pid)
        try:
            while not select.select([handle], [], [], TICK_SECONDS)[0]:
                now = time.monotonic()
                if self.stop_asked:
                    stopping.ask("stop")
                if now >= self._next_look:
                    self._next_look = now + _LOOK_SECONDS
                    self._look(child, stopping)
                stopping.step()
        finally:
            os.close(handle)

    def _look(self, child: Child, stopping: Stopping) -> None:
        """Be heard of, hear, and carry events; where the store is away, the next time."""
        self._check_fence()
        self._saw(ram=int(charged_bytes(child.process.pid)))
        with suppress(StoreAway):  # the rest would wait for it, too
            if self._hear().cancel:
                stopping.ask("cancel")
            self.tail.carry()
            self._read_plan(stopping)

    def _check_fence(self) -> None:
        if fence.read(self.folder)[0] > self.attempt.fence:
            raise fence.Overtaken(str(self.folder))

    def _hear(self) -> Job:
        now = time.monotonic()
        if now < self._next_beat:
            return self.store.claims.look(self.attempt)
        job = self.store.claims.beat(self.attempt, self.job.spent_seconds + now - self.began)
        self._next_beat = now + self.settings.lease_seconds / 4
        return job

    def _read_plan(self, stopping: Stopping) -> None:
        """Once its plan is known, so much is kept free for the job as the plan says, or it does not go on."""
        path = self.run / "plan.json"
        if not self.job.work.plans or not path.is_file():
            return
        written = path.stat().st_mtime_ns
        if written != self.plan_of:
            ram, vram = planned_bytes(path)
            if not self.store.claims.needs(self.attempt, ram, vram):
                stopping.ask("stop")  # it goes back in line, and begins where there is so much room
            self.plan_of = written

    def _until_gone(self) -> None:
        """Kill what is left of the attempt, and wait until nothing is: then its memory is free."""
        while end_members(self.attempt.id):
            time.sleep(_GONE_SECONDS)
            now = time.monotonic()
            if now >= self._next_beat:  # one that hangs in the kernel is still ours
                self._next_beat = now + self.settings.lease_seconds / 4
                self._try(lambda: self.store.claims.beat(self.attempt))

    def _command(self) -> list[str]:
        work = self._granted()
        program = self.settings.program if work.module is None else (sys.executable, "-m", work.module)
        return [*program, *work.words(self.run)]

    def _granted(self) -> Work:
        work = self.job.work
        budget = self.job.granted_ram
        if self.job.smaller and not work.resumes and budget is not None:
            budget = int(budget * 0.75 ** max(1, self.job.memory_retries))
        return work.model_copy(update={"ram": budget})

    def _environment(self, left: float | None) -> dict[str, str]:
        values = {
            WATCHER_BYTES: str(int(charged_bytes())),
            FENCE: f"{self.folder / fence.NAME}:{self.attempt.fence}",
            "PYTHONUNBUFFERED": "1",
        }
        if self.job.work.verb != "train":  # which has them in its run anyway
            values[EVENTS] = str(self.run / NAME)
        if self.job.work.module is not None:
            values[WORK_VARIABLE] = self._granted().model_dump_json()
        values |= self._bounds()
        if self.job.smaller:
            values[SMALLER_PLAN] = "1"
        if left is not None:
            values[DEADLINE] = str(time.monotonic() + left)
        return values

    def _bounds(self) -> dict[str, str]:
        """Where it may read: what the job may, what it writes itself, and the run that it goes on with."""
        work = self.job.work
        if work.reads is None:
            return {}
        run = getattr(work, "run", None)
        return confined.environment([*work.reads, self.run, *([run] if run else [])])

    def _task(self) -> str | None:
        """What is learned, where something is."""
        work = self.job.work
        if not isinstance(work, TrainWork) or work.spec is None:
            return work.task if isinstance(work, TrainWork) else None
        with suppress(OSError, ValueError, KeyError):
            return str(tomllib.loads(work.spec.read_text(encoding="utf-8"))["task"])
        return None

    def _is_writing(self) -> bool:
        return any((self.run / "checkpoints").glob("*.part"))

    def _seconds_left(self) -> float | None:
        limit = self.job.limit_seconds
        return None if limit is None else limit - self.job.spent_seconds

    def _finished_before(self) -> Ending | None:
        """A run whose result is there was killed after its last step: nothing is left to do."""
        path = self.run / "result.json"
        if self.job.work.verb != "train" or not path.is_file():
            return None
        return self._ending("succeeded", code=0, result=told_in(path))

    def _saw(self, **bytes_of: int) -> None:
        for pool, value in bytes_of.items():
            self.peak[pool] = max(value, self.peak.get(pool, 0))

    def _ending(self, how: Any, number: int = 0, code: int | None = None, **more: Any) -> Ending:
        self._saw(**self.tail.peak)
        return Ending(
            how=how, signal=number, code=code, seconds=time.monotonic() - self.began, peak_bytes=self.peak,
            limit_bytes=self.attempt.limit_bytes, last_events=list(self.tail.last), **more,
        )  # fmt: skip

    def _unable(self, error: CaudalError | OSError) -> Ending:
        from caudal.core.files import is_disk_full

        if isinstance(error, StoreAway):
            raise error
        code = error.code if isinstance(error, CaudalError) else "error"
        full = is_disk_full(error) or code == "disk_full"
        self._until_gone()
        problem = Problem(code="disk_full" if full else code, message=str(error))
        return self._ending("disk_full" if full else "error", error=problem)

    def _tell(self, ending: Ending) -> None:
        """Leave the name of the end beside the run, for whoever finds it if this process does not get to the
        store; then tell the store, however long that takes.
        """
        note = ending_file(self.folder, self.attempt)
        with suppress(CaudalError, OSError):  # no room: the store has to hear it from here
            write_whole(note, lambda part: part.write_text(ending.model_dump_json(), encoding="utf-8"))
        self._keep_trying(self.tail.carry_all)
        self._saw(**self.tail.peak)
        whole = ending.model_copy(update={"peak_bytes": self.peak, "last_events": list(self.tail.last)})
        self._keep_trying(lambda: self.store.claims.end(self.attempt, whole, self.settings))

    def _try(self, ask: Callable[[], T]) -> T | None:
        """Ask the store; `None` where it is away."""
        try:
            return ask()
        except StoreAway:
            return None

    def _keep_trying(self, ask: Callable[[], T]) -> T:
        while True:
            try:
                return ask()
            except StoreAway:
                time.sleep(TICK_SECONDS)


def ending_file(folder: Path, attempt: Attempt) -> Path:
    """Where an attempt notes its end before it tells the store."""
    return folder / f"ending-{attempt.fence}.json"


def has_no_room(folder: Path) -> bool:
    """Whether the disk of a folder is full, but for the odd block."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize < _ODD_BYTES


def supervise(attempt_id: str, settings: Settings) -> None:
    """All of one attempt, in a process that leads a session of its own; its settings are in nobody's
    environment.
    """
    os.environ.pop(VARIABLE, None)  # the work has no use for passwords
    os.environ[MARK] = attempt_id
    pid = os.getpid()
    tick = began(pid)
    assert os.getsid(0) == pid, "it leads its session"
    assert tick is not None, "it is alive"
    supervisor: Supervisor | None = None

    def ask_to_stop(_number: int, _frame: FrameType | None) -> None:
        if supervisor is not None:
            supervisor.stop_asked = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask_to_stop)
    with open_store(settings, migrate=False, busy_seconds=_PATIENCE_SECONDS) as store:
        while supervisor is None:
            try:
                job, attempt = store.claims.register(attempt_id, pid, tick)
            except StoreAway:
                time.sleep(TICK_SECONDS)
            except Superseded:
                return
            else:
                supervisor = Supervisor(store, settings, job, attempt)
        try:
            supervisor.supervise()
        except (Superseded, fence.Overtaken):
            return

"""`caudal worker`: the process that takes jobs on a machine, and looks after those that run there.

It starts supervisors and leaves them alone: they outlive it, and the next one finds them again. With Celery,
jobs are taken by Celery's processes, which this one starts and keeps alive.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Literal, get_args

from caudal.core.errors import CaudalError, UsageError, WorkerDied
from caudal.core.messages import _
from caudal.memory import allocator
from caudal.service.errors import StoreAway
from caudal.service.keeper import Keeper, ask_to_stop
from caudal.service.machine import start_next, this_machine
from caudal.service.place import began, is_alive
from caudal.service.planning import Planning
from caudal.service.queues import Helper, open_helper
from caudal.service.queues.embedded import PARENT
from caudal.service.settings import Settings
from caudal.service.store import Store, open_store

Role = Literal["takes", "minds", "keeps"]
"""`takes` jobs itself; `minds` a machine on which Celery takes them; only `keeps` an eye on all."""

TICK_SECONDS = 0.2
_LOOK_SECONDS = 0.5
_DRAIN_SECONDS = 30.0
_LOCK_SECONDS = 10.0
_AWAY_SECONDS = 1.0
_CHECK_SECONDS = 0.5


class WorkerLoop:
    """One worker. Set `stop` to end it: its jobs go back in line then, with a checkpoint."""

    def __init__(self, store: Store, settings: Settings, role: Role) -> None:
        self._store, self._settings, self._role = store, settings, role
        self._machine = this_machine(settings)
        self._keeper = Keeper(store, settings)
        self._planning = Planning(store, settings, self._machine)
        self._children: list[int] = []
        self._worker_id: str | None = None
        self._next_beat = self._next_look = 0.0
        self.stop = False

    def tick(self) -> int:
        """Do what is due; how many jobs are in line, up to some hundreds.

        Raises:
            StoreAway: try again.
        """
        self._reap()
        now = time.monotonic()
        if self._role != "keeps" and now >= self._next_beat:
            self._be_heard()
            self._next_beat = now + self._settings.lease_seconds / 4
        if now >= self._next_look:
            self._keeper.look()
            self._next_look = now + _LOOK_SECONDS
        in_line = self._store.line.in_line()
        if self._role == "takes" and in_line:
            while not self.stop and (started := start_next(self._store, self._settings, self._machine)):
                self._children.append(started)
        if self._role != "keeps" and in_line and not self.stop:
            self._planning.tend()
        return in_line

    def _reap(self) -> None:
        """Hear of supervisors that have ended, so that their numbers are free."""
        self._children = [pid for pid in self._children if os.waitpid(pid, os.WNOHANG) == (0, 0)]

    def _be_heard(self) -> None:
        if self._worker_id is not None:
            self._store.workers.beat(self._worker_id)
            return
        tick = began(os.getpid())
        assert tick is not None, "this process is alive"
        arrived = self._store.workers.arrive(self._machine, os.getpid(), tick, self._settings.queue)
        self._worker_id = arrived.id

    def drain(self) -> None:
        """Ask the jobs of this machine to go back in line, and wait until they have.

        Raises:
            StoreAway: the database does not answer; supervisors that were asked end all the same.
        """
        self._planning.close()
        if self._role == "keeps":
            return
        until = time.monotonic() + _DRAIN_SECONDS
        left = [(a.pid, a.pid_began) for a in ask_to_stop(self._store, self._machine.place)]
        while left and time.monotonic() < until:
            self._reap()
            left = [(pid, tick) for pid, tick in left if pid and tick and is_alive(pid, tick)]
            time.sleep(TICK_SECONDS / 4)
        self._keeper.look()
        if self._worker_id is not None:
            self._store.workers.set_state(self._worker_id, "gone")


def run_worker(settings: Settings, role: Role | None = None) -> int:
    """All of `caudal worker`: take jobs until SIGTERM or SIGINT. The exit code.

    Raises:
        UsageError: another worker of this home runs here, or the settings ask for more than there is.
        StoreAway: the database does not answer.
    """
    allocator.let_go()
    role = role or ("takes" if settings.queue == "embedded" else "minds")
    settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _alone(settings, role), open_store(settings) as store:
        loop = WorkerLoop(store, settings, role)

        def stop(_number: int, _frame: FrameType | None) -> None:
            loop.stop = True

        old = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            _until_told(loop, open_helper(settings, role == "minds"))
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)
    return 0


def _until_told(loop: WorkerLoop, helper: Helper) -> None:
    parent = os.environ.get(PARENT)
    try:
        while not loop.stop:
            if parent is not None and os.getppid() != int(parent):
                return  # the server was killed; its jobs go on, and its next worker finds them
            try:
                helper.tend(loop.tick())
            except StoreAway as error:
                print("!", error, file=sys.stderr, flush=True)
                time.sleep(_AWAY_SECONDS)
            time.sleep(TICK_SECONDS)
        helper.take_no_more()
        with suppress(StoreAway):
            loop.drain()
    finally:
        helper.close()


def check_worker(settings: Settings, pause: Callable[[float], object] = time.sleep) -> None:
    """See that the worker of this machine is heard of: that what it tells the store grows within a lease.

    Raises:
        WorkerDied: there is none, or it is silent.
        StoreAway: the database does not answer.
    """
    with open_store(settings, migrate=False) as store:
        here = [one.id for one in store.workers.list() if one.name == settings.worker_name]
        before = store.workers.beats()
        for _look in range(int(settings.lease_seconds / _CHECK_SECONDS) if here else 0):
            pause(_CHECK_SECONDS)
            now = store.workers.beats()
            if any(now.get(one, 0) > before.get(one, 0) for one in here):
                return
    raise WorkerDied(
        _("Nothing is heard of a worker named {name}.").format(name=settings.worker_name),
        _("Start one: caudal worker."),
    )


@contextmanager
def _alone(settings: Settings, role: Role) -> Iterator[None]:
    """Two workers of one machine would both count its memory as theirs.

    Raises:
        UsageError: there is one already, and it does not end.
    """
    if role == "keeps":
        yield
        return
    with (settings.home / f"worker-{settings.worker_name}.lock").open("w") as file:
        until = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() >= until:
                    raise UsageError(
                        _("Another worker named {name} works in {home}.").format(
                            name=settings.worker_name, home=settings.home
                        ),
                        _("Stop it, or choose another --home."),
                    ) from None
                time.sleep(TICK_SECONDS)
        yield


def main() -> None:
    """A worker process that a server starts."""
    role: Role = next(role for role in get_args(Role) if role == sys.argv[1])
    try:
        sys.exit(run_worker(Settings.from_environment(), role))
    except CaudalError as error:
        print("error:", error, file=sys.stderr, flush=True)
        sys.exit(1)


if __name__ == "__main__":
    main()

"""Watches over a run from outside: waits for its process, and names the way in which it ended.

It stays small, because what it holds is taken from the run: it loads neither torch nor anything that reads
files. It does not know what the process does, nor what a plan is.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import IO, Literal

from caudal.core.units import MIB, Bytes
from caudal.memory import cgroup, shared_memory
from caudal.memory.process import first_to_go

Reason = Literal["ended", "oom_host", "oom_shm", "timeout", "killed"]

GRACE_SECONDS = 60.0  # after the time limit, to write a checkpoint
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_OFFERED = 500  # below those that measure, which may be ended without harm
_SHM_FULL = Bytes(MIB)


@dataclass(frozen=True, slots=True)
class Ending:
    """How a process ended.

    `reason` is `ended` when it ended by itself, with `code`; `oom_host` when the system killed it for want
    of memory; `oom_shm` when it touched shared memory for which `/dev/shm` had no room; `timeout` when it was
    killed because it did not heed its time limit; `killed` when another signal ended it. `signal` is 0 where
    there was none. `resident` is the most that it or a process below it had resident, `cpu_seconds` what they
    computed together. `asked_to_end`: Ctrl-C or SIGTERM was handed on to it.
    """

    reason: Reason
    code: int
    signal: int
    seconds: float
    resident: Bytes
    cpu_seconds: float
    asked_to_end: bool = False


def watch(
    command: Sequence[str],
    env: Mapping[str, str],
    limit_seconds: float | None = None,
    grace_seconds: float = GRACE_SECONDS,
) -> Ending:
    """Run `command` to its end, in a process group of its own, with `env` beside this environment.

    Ctrl-C and SIGTERM are handed on to it; it is told to stop when this process dies. At `limit_seconds` it
    gets SIGTERM, and `grace_seconds` later its whole group is killed. Only for a process's main thread, and
    before it has others.
    """
    child = Child(command, env)
    with _handing_on(child.process) as handed_on:
        overdue = _wait(child.process, limit_seconds, grace_seconds)
    return replace(child.ending(overdue), asked_to_end=bool(handed_on))


class Child:
    """A process in a group of its own that is told to stop when this one dies, by the signal `dies_with`.

    Only for a process's main thread, before it has others. `output` and `log` take what it prints. The higher
    `niceness` (0 … 19), the more others that want the processors go first.
    """

    def __init__(
        self,
        command: Sequence[str],
        env: Mapping[str, str],
        *,
        dies_with: int = signal.SIGTERM,
        output: IO[bytes] | None = None,
        log: IO[bytes] | None = None,
        niceness: int = 0,
    ) -> None:
        self._kills, self._began, self._used = oom_kills(), time.monotonic(), _cpu_seconds()
        self.process = subprocess.Popen(
            list(command),
            env={**os.environ, **env},
            process_group=0,
            preexec_fn=_tied_to(os.getpid(), dies_with, niceness),
            stdout=output,
            stderr=log,
        )

    def saw_oom_kill(self) -> bool:
        """Whether the kernel has killed for want of memory since it began."""
        return oom_kills() > self._kills

    def ending(self, overdue: bool = False) -> Ending:
        """How it ended; `overdue` where it was made to end at its time limit."""
        code = self.process.wait()
        seconds = time.monotonic() - self._began
        resident = Bytes(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
        reason: Reason = "ended"
        if overdue:
            reason = "timeout"
        elif code < 0:
            reason = _why(-code, self.saw_oom_kill())
        ended = reason == "ended"
        used = _cpu_seconds() - self._used
        return Ending(reason, code if ended else 1, max(0, -code), seconds, resident, used)


def _wait(child: subprocess.Popen[bytes], limit: float | None, grace: float) -> bool:
    """Wait for its end; whether it had to be killed for its time limit."""
    with suppress(subprocess.TimeoutExpired):
        child.wait(limit)
        return False
    child.terminate()
    with suppress(subprocess.TimeoutExpired):
        child.wait(grace)
        return False
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    return True


def _why(number: int, group_had_kills: bool) -> Reason:
    if number == signal.SIGKILL and group_had_kills:
        return "oom_host"
    shm = shared_memory.read() if number == signal.SIGBUS else None
    return "oom_shm" if shm is not None and shm.free < _SHM_FULL else "killed"


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def oom_kills() -> int:
    """How often the kernel has killed for want of memory: in this group if it counts, else anywhere."""
    counted = cgroup.read().oom_kills
    if counted is not None:
        return counted
    with suppress(OSError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def _tied_to(parent: int, number: int, niceness: int) -> Callable[[], None]:
    libc = ctypes.CDLL(None, use_errno=True)

    def tie() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, number)
        first_to_go("self", _OFFERED)  # not the one who can tell
        os.nice(niceness)
        if os.getppid() != parent:  # it died before the call
            os.kill(os.getpid(), number)

    return tie


@contextmanager
def _handing_on(child: subprocess.Popen[bytes]) -> Iterator[list[int]]:
    """The signals that were handed on."""
    handed_on: list[int] = []

    def hand_on(number: int, _frame: FrameType | None) -> None:
        handed_on.append(number)
        with suppress(ProcessLookupError):
            child.send_signal(number)

    old = {number: signal.signal(number, hand_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield handed_on
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)

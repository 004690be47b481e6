"""Watches over a run from outside: waits for its process, and names the way in which it ended.

It stays small, because what it holds is taken from the run: it loads neither torch nor anything that reads
files. It does not know what the process does, nor what a plan is.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Literal

from caudal.memory import cgroup

Reason = Literal["ended", "oom_host", "killed"]

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_FIRST_TO_GO = "500"


@dataclass(frozen=True, slots=True)
class Ending:
    """How a process ended.

    `reason` is `ended` when it ended by itself, with `code`; `oom_host` when the system killed it for want
    of memory; `killed` when another signal ended it. `signal` is 0 where there was none.
    """

    reason: Reason
    code: int
    signal: int
    seconds: float


def watch(command: Sequence[str], env: Mapping[str, str]) -> Ending:
    """Run `command` to its end, in a process group of its own, with `env` beside this environment.

    Ctrl-C and SIGTERM are handed on to it; it is told to stop when this process dies. Only for a process's
    main thread, and before it has others.
    """
    kills, began = _oom_kills(), time.monotonic()
    child = subprocess.Popen(
        list(command),
        env={**os.environ, **env},
        process_group=0,
        preexec_fn=_tied_to(os.getpid()),
    )
    with _handing_on(child):
        code = child.wait()
    seconds = time.monotonic() - began
    if code >= 0:
        return Ending("ended", code, 0, seconds)
    for_memory = code == -signal.SIGKILL and _oom_kills() > kills
    return Ending("oom_host" if for_memory else "killed", 1, -code, seconds)


def _oom_kills() -> int:
    """How often the kernel has killed for want of memory: in this group if it counts, else anywhere."""
    counted = cgroup.read().oom_kills
    if counted is not None:
        return counted
    with suppress(OSError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def _tied_to(parent: int) -> Callable[[], None]:
    libc = ctypes.CDLL(None, use_errno=True)

    def tie() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        with suppress(OSError):  # if somebody must go, not the one who can tell
            Path("/proc/self/oom_score_adj").write_text(_FIRST_TO_GO)
        if os.getppid() != parent:  # it died before the call
            os.kill(os.getpid(), signal.SIGTERM)

    return tie


@contextmanager
def _handing_on(child: subprocess.Popen[bytes]) -> Iterator[None]:
    def hand_on(number: int, _frame: FrameType | None) -> None:
        with suppress(ProcessLookupError):
            child.send_signal(number)

    old = {number: signal.signal(number, hand_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)

"""Which process is which: on this kernel and in others, now and after a number was given away again.

Reads `/proc`. Ends processes only where every one of them carries the mark of the attempt that started it.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

MARK = "CAUDAL_ATTEMPT"
"""In the environment of every process of an attempt: the attempt's id."""

_DEAD = "ZX"


@lru_cache(maxsize=1)
def place() -> str:
    """This boot of this kernel, and this process namespace: where a process number means something."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}:{Path('/proc/self/ns/pid').stat().st_ino}"


def began(pid: int) -> int | None:
    """The tick at which process `pid` began; `None` where it has ended, reaped or not."""
    fields = _stat(pid)
    return None if fields is None or fields[0] in _DEAD else int(fields[19])


def is_alive(pid: int, began_tick: int) -> bool:
    """Whether the process that began then is there, and not another one of its number."""
    return began(pid) == began_tick


def members(mark: str) -> list[int]:
    """The living processes that carry the mark, whatever group or session they have made for themselves.

    A supervisor does not: it is a copy of its worker, and has the environment of that one.
    """
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and _carries(entry.name, mark) and began(int(entry.name)) is not None:
            found.append(int(entry.name))
    return found


def end_members(mark: str) -> int:
    """Kill all that carry the mark; how many were there."""
    left = [pid for pid in members(mark) if pid != os.getpid()]
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return len(left)


def _stat(pid: int) -> list[str] | None:
    """The fields of `/proc/PID/stat` from the state on."""
    try:
        line = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return line.rpartition(") ")[2].split()  # the name before it may hold anything


def _carries(pid: str, mark: str) -> bool:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:  # it ended meanwhile, or is somebody else's
        return False
    return f"{MARK}={mark}".encode() in environment.split(b"\0")

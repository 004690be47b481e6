"""What the kernel tells of single processes: their bytes, their children, and the pages that forks share.

Paths are taken below `root`, so that tests can read recorded processes. Adding up a tree is `meters`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from caudal.memory.kernel_files import sizes, text

_ROOT = Path("/")
_FORKED = 0x40  # PF_FORKNOEXEC of linux/sched.h: its memory began as its parent's
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
_WALL = 0x40000000  # children of any kind
_NEW_SECONDS = 0.1


def status(pid: int | str, root: Path = _ROOT) -> dict[str, int]:
    """The rows of `/proc/PID/status` that are sizes, in bytes; empty when there is no such process."""
    return sizes(f"{root}/proc/{pid}/status")


def first_to_go(pid: int | str, score: int = 1000) -> None:
    """If the kernel must end somebody for want of memory, it is `pid`: whoever watches it can say why.

    The kernel adds `score` thousandths of all memory to what it holds: of several, the highest goes first.
    """
    with suppress(OSError):  # it ended meanwhile, or is not ours
        Path(f"/proc/{pid}/oom_score_adj").write_text(str(score))


def descendants(pid: int, root: Path = _ROOT) -> list[int]:
    """`pid` and every living process below it."""
    if pid == os.getpid() and root == _ROOT and _has_no_child():
        return [pid]
    found = [pid]
    for parent in found:
        # Each thread lists those that it started.
        with suppress(OSError):  # the process ended meanwhile
            for thread in Path(f"{root}/proc/{parent}/task").iterdir():
                found.extend(int(child) for child in text(f"{thread}/children").split())
    return found


def _has_no_child() -> bool:
    # One call, where looking into every thread takes 15 µs each; nothing is waited for or taken away.
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT | _WALL)
    except ChildProcessError:
        return True
    return False


@dataclass(frozen=True, slots=True)
class Fork:
    """A process that has run no other program since it was forked, so shares pages with `parent`.

    `began` tells it from a later process of the same number. `is_new` is true in its first tenth of a second:
    it has nothing of its own yet, or is on its way to another program and still runs in its parent's memory,
    where all that it maps would be counted a second time.
    """

    pid: int
    parent: int
    began: int
    is_new: bool


def fork_of(pid: int, root: Path = _ROOT) -> Fork | None:
    """What process `pid` shares with its parent, or `None` where it runs a program of its own."""
    line = text(f"{root}/proc/{pid}/stat")
    fields = line.rpartition(") ")[2].split()  # the name before it may hold anything
    if not fields or not int(fields[6]) & _FORKED:
        return None
    began = int(fields[19])
    age_seconds = time.clock_gettime(time.CLOCK_BOOTTIME) - began / _TICKS_A_SECOND
    return Fork(pid, int(fields[1]), began, age_seconds < _NEW_SECONDS)


@dataclass(frozen=True, slots=True)
class Part:
    """A process's part of the pages that it maps: a page that n processes map counts as 1/n of its bytes.

    `anonymous_twice` is what adding up whole anonymous pages would count too much of it.
    """

    anonymous: int
    anonymous_twice: int
    shared: int


def part_of(pid: int, root: Path = _ROOT) -> Part | None:
    """Walk the pages of process `pid`, 3 to 14 ms a GiB; `None` where it may not be looked into."""
    found = sizes(f"{root}/proc/{pid}/smaps_rollup")
    if "Pss_Anon" not in found:  # ended, forbidden, or a kernel before 5.3
        return None
    whole, part = found.get("Anonymous", 0), found["Pss_Anon"]
    return Part(part, max(0, whole - part), found.get("Pss_Shmem", 0))


def parts_of(pids: Iterable[int], root: Path = _ROOT) -> list[Part]:
    """The parts of those processes that can be looked into."""
    return [part for pid in pids if (part := part_of(pid, root)) is not None]

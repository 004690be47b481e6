"""What a run knows of the small process that watches over it, by its environment."""

from __future__ import annotations

import os
import sys
import time

from caudal.core.units import Bytes

WATCHER_BYTES = "CAUDAL_WATCHER_BYTES"
"""What the watcher holds; set for every run that has one."""
SMALLER_PLAN = "CAUDAL_SMALLER_PLAN"
"""Set for a run that goes on after it was killed for want of memory: not on its stored plan again."""

DEADLINE = "CAUDAL_DEADLINE"
"""When the run has to end, with a checkpoint: in seconds of the monotonic clock, one for all processes."""

EVENTS = "CAUDAL_EVENTS"
"""The file to which a verb that writes no run of its own appends what happens."""

_SHARE = 0.85


def is_watched() -> bool:
    """Whether somebody watches."""
    return WATCHER_BYTES in os.environ


def watcher_bytes() -> Bytes:
    """What the watcher takes of this run's budget."""
    return Bytes(int(os.environ.get(WATCHER_BYTES, "0")))


def must_take_less() -> bool:
    """Whether this run was killed for want of memory before."""
    return bool(os.environ.get(SMALLER_PLAN))


def seconds_left() -> float | None:
    """Until the run's time limit; `None` if it has none."""
    return max(0.0, float(os.environ[DEADLINE]) - time.monotonic()) if DEADLINE in os.environ else None


def budget_below(predicted: Bytes) -> Bytes:
    """The budget of the next plan, of what the last one said that it would hold."""
    return Bytes(predicted * _SHARE)


FENCE = "CAUDAL_FENCE"
"""`PATH:NUMBER`: this process may put nothing in place once the file PATH says another number."""

SUPERSEDED = 9
"""The exit code of a process whose number is no longer the one."""


def heed_fence() -> None:
    """End at once, where a file would be put in place after somebody else took the run over.

    Whoever was stopped for a long time and wakes up does not know that its run was given to another. What is
    whole in a folder came there by a rename, so that is where it is asked.
    """
    if FENCE not in os.environ:
        return
    path, _colon, number = os.environ[FENCE].rpartition(":")

    def ask(event: str, _arguments: object) -> None:
        if event == "os.rename" and _number_in(path) not in (number, None):
            os._exit(SUPERSEDED)

    sys.addaudithook(ask)


def _number_in(path: str) -> str | None:
    """What the fence says; `None` where it cannot be read, which is nobody's order to end."""
    try:
        with open(path, encoding="ascii") as file:
            return file.readline().split()[0]
    except (OSError, IndexError):
        return None

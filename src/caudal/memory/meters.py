"""How many bytes are really charged: the process tree, its peak, pressure, and the device.

A meter that cannot see returns `None`; it never guesses.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from caudal.core.units import Bytes

_PROC = Path("/proc")


def _status(pid: int | str) -> dict[str, int]:
    try:
        lines = (_PROC / str(pid) / "status").read_text().splitlines()
    except OSError:
        return {}
    rows = (line.replace(":", "").split() for line in lines)
    return {row[0]: int(row[1]) * 1024 for row in rows if len(row) == 3 and row[2] == "kB"}


def descendants(pid: int) -> list[int]:
    """`pid` and every living process below it."""
    found = [pid]
    for parent in found:
        for task in _children_files(parent):
            found.extend(int(child) for child in task.split())
    return found


def _children_files(pid: int) -> list[str]:
    texts = []
    try:
        for task in (_PROC / str(pid) / "task").iterdir():
            texts.append((task / "children").read_text())
    except OSError:  # the process ended meanwhile
        pass
    return texts


def charged_bytes(pid: int | None = None) -> Bytes:
    """Charged bytes of the process `pid` (default: this one) and its descendants.

    Anonymous pages are added up over the processes; shared pages are those of the process that maps the
    most of them, because each is charged once.
    """
    anonymous, shared = 0, 0
    for one in descendants(pid or os.getpid()):
        status = _status(one)
        anonymous += status.get("RssAnon", 0)
        shared = max(shared, status.get("RssShmem", 0))
    return Bytes(anonymous + shared)


def _charged(status: dict[str, int]) -> int:
    return status.get("RssAnon", 0) + status.get("RssShmem", 0)


class PeakMeter:
    """The exact peak of this process's charged bytes since `reset`.

    The kernel keeps the high-water mark of the resident set (`VmHWM`); taking off the file pages leaves
    the charged ones. Where the mark cannot be reset (`/proc/self/clear_refs` is not writable), it is the
    peak since the process began.
    """

    def __init__(self) -> None:
        self.resettable = True
        self.reset()

    def reset(self) -> None:
        """Start a new peak from what is held now."""
        try:
            (_PROC / "self/clear_refs").write_text("5")
        except OSError:
            self.resettable = False
        self._file_bytes = _status("self").get("RssFile", 0)

    def peak(self) -> Bytes:
        """The most bytes that were charged at once."""
        status = _status("self")
        # File pages only grow while libraries load, so the smaller reading keeps the peak honest.
        file_bytes = min(self._file_bytes, status.get("RssFile", 0))
        return Bytes(max(_charged(status), status.get("VmHWM", 0) - file_bytes))


@dataclass(frozen=True, slots=True)
class Pressure:
    """Share of the last 10 seconds in which some, or all, work waited for memory (PSI), in percent."""

    some: float
    full: float


def pressure(root: Path = Path("/")) -> Pressure | None:
    """Memory pressure of the machine, or `None` where the kernel does not tell."""
    try:
        lines = (root / "proc/pressure/memory").read_text().splitlines()
    except OSError:
        return None
    shares = {line.split()[0]: float(line.split()[1].removeprefix("avg10=")) for line in lines}
    return Pressure(shares.get("some", 0.0), shares.get("full", 0.0))


class Watch:
    """Reads charged bytes a few times a second, in a thread, for traces and for the peak of the tree."""

    def __init__(
        self,
        hertz: float = 10.0,
        listen: Callable[[Bytes], None] | None = None,
        beside: int = 0,
    ) -> None:
        """`beside` bytes are held by a process that belongs to the run and is not below this one."""
        self._beside = beside
        self._period_seconds = 1.0 / hertz
        self._listen = listen
        self._stop = threading.Event()
        self._peak = Bytes(0)
        self._lock = threading.Lock()
        self._exact = PeakMeter()
        self._thread = threading.Thread(target=self._run, name="caudal-memory-watch", daemon=True)

    @property
    def peak(self) -> Bytes:
        """The most charged bytes seen, of the tree (sampled) or of this process (exact)."""
        self._look()
        return self._peak

    def _look(self) -> Bytes:
        with self._lock:
            now = Bytes(charged_bytes() + self._beside)
            others = max(0, now - _charged(_status("self")))  # the exact peak is this process's alone
            self._peak = Bytes(max(self._peak, now, self._exact.peak() + others))
            # A new mark each time: file pages that came in since the last one would count as charged.
            if self._exact.resettable:
                self._exact.reset()
            return now

    def _run(self) -> None:
        last = 0.0
        while not self._stop.wait(self._period_seconds):
            now = self._look()
            # The trace needs no more than one point a second; the peak takes every reading.
            if self._listen and time.monotonic() - last >= 1.0:
                last = time.monotonic()
                self._listen(now)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._look()

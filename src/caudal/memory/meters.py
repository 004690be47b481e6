"""How many bytes are really charged: the process tree, its peak, and a watch over both.

A meter that cannot see returns `None`; it never guesses. What the kernel tells of one process is `process`,
of the group `cgroup`, of waiting `pressure`, of the device `vram`.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path

from caudal.core.errors import CaudalError
from caudal.core.units import Bytes
from caudal.memory import process
from caudal.memory.process import Fork, descendants

__all__ = ["PeakMeter", "Watch", "charged_bytes", "descendants", "mind_files"]

_PROC = Path("/proc")


class Overlap:
    """How much too much it would be to add up the pages of processes that were forked from each other.

    A forked child maps all that its parent held, and the kernel charges those pages once. Only a walk over
    the pages tells (`smaps_rollup`), 3 to 14 ms a GiB and process, while adding up takes 20 µs; ten walks a
    second would take a tenth of a core. So it walks when a process was forked or has ended (a fork has just
    cost the kernel as much), and else so seldom that the walks take less than 0.5 % of a core. In between,
    pages that a child has written to and so copied are seen late; nothing is counted twice. Processes that
    run a program of their own, spawned ones among them, share no anonymous pages and cost nothing here.
    """

    _SHARE = 0.005
    _MOST = 32

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[frozenset[tuple[int, int]], tuple[float, int, int]] = {}

    def of(self, forks: Iterable[Fork], root: Path) -> tuple[int, int]:
        """Bytes: the anonymous ones counted too often, the shared ones that forks and parents hold
        together."""
        key = frozenset((fork.pid, fork.began) for fork in forks)
        with self._lock:
            until, twice, shared = self._known.get(key, (0.0, 0, 0))
            began = self._clock()
            if key and began >= until:
                parts = process.parts_of({*(f.pid for f in forks), *(f.parent for f in forks)}, root)
                twice = sum(part.anonymous_twice for part in parts)
                shared = sum(part.shared for part in parts)
                now = self._clock()
                if len(self._known) >= self._MOST:
                    self._known.clear()
                self._known[key] = (now + (now - began) / self._SHARE, twice, shared)
            return twice, shared


_overlap = Overlap()


def charged_bytes(pid: int | None = None, root: Path = Path("/"), overlap: Overlap = _overlap) -> Bytes:
    """Charged bytes of the process `pid` (default: this one) and its descendants.

    Anonymous pages are added up over the processes, less what forked ones share (`Overlap`); shared pages are
    those of the process that maps the most of them, because each is charged once.
    """
    return _charged_tree(pid or os.getpid(), root, overlap)[0]


def _charged_tree(pid: int, root: Path, overlap: Overlap) -> tuple[Bytes, Bytes]:
    """What the tree below `pid` and what that process alone is charged, from one reading.

    Of two readings the difference would be what was freed between them.
    """
    first, *others = descendants(pid, root)
    forks = [fork for other in others if (fork := process.fork_of(other, root))]
    new = {fork.pid for fork in forks if fork.is_new}
    forks = [fork for fork in forks if not fork.is_new]
    rows = [process.status(one, root) for one in (first, *others) if one not in new]
    anonymous = [row.get("RssAnon", 0) for row in rows]
    shared = max(row.get("RssShmem", 0) for row in rows)
    twice, shared_by_forks = overlap.of(forks, root) if forks else (0, 0)
    whole = max(max(anonymous), sum(anonymous) - twice) + max(shared, shared_by_forks)
    return Bytes(whole), Bytes(_charged(rows[0]))


def _charged(status: dict[str, int]) -> int:
    return status.get("RssAnon", 0) + status.get("RssShmem", 0)


_MARK = threading.Lock()
_METERS: weakref.WeakSet[PeakMeter] = weakref.WeakSet()
"""All that read the one mark of this process."""


class PeakMeter:
    """The exact peak of this process's charged bytes since `reset`.

    The kernel keeps the high-water mark of the resident set (`VmHWM`); taking off the file pages leaves
    the charged ones. There is one mark for all meters of a process: who resets it tells the others before
    what it stood at. Where it cannot be reset (`/proc/self/clear_refs` is not writable), it is the
    peak since the process began. When file pages came or went meanwhile, as where libraries load and files
    are mapped, nobody knows which of them the mark counts: then it is the least that it can mean.
    """

    def __init__(self) -> None:
        self.resettable = True
        self._file_bytes = self._seen = 0
        self.reset()
        with _MARK:
            _METERS.add(self)

    def reset(self) -> None:
        """Start a new peak from what is held now."""
        with _MARK:
            status = process.status("self")
            for other in _METERS:
                other._seen = max(other._seen, other._marked(status))
            try:
                (_PROC / "self/clear_refs").write_text("5")
            except OSError:
                self.resettable = False
            else:
                for other in _METERS:
                    other._file_bytes = status.get("RssFile", 0)
            self._file_bytes, self._seen = status.get("RssFile", 0), 0

    def peak(self) -> Bytes:
        """The most bytes that were charged at once."""
        with _MARK:
            return Bytes(max(self._seen, self._marked(process.status("self"))))

    def _marked(self, status: dict[str, int]) -> int:
        """What the mark means at least."""
        file_bytes = max(self._file_bytes, status.get("RssFile", 0))
        return max(_charged(status), status.get("VmHWM", 0) - file_bytes)


def mind_files() -> None:
    """To be called while a file is mapped that will soon not be: nobody shall count its pages as charged.

    The mark has them in it, and when a meter is asked they are gone. Measured on a model of 31 MB that was
    read from its file within a tenth of a second: 274 MiB for 250.
    """
    with _MARK:
        mapped = process.status("self").get("RssFile", 0)
        for meter in _METERS:
            meter._file_bytes = max(meter._file_bytes, mapped)


class Watch:
    """Reads charged bytes a few times a second, in a thread, for traces and for the peak of the tree."""

    def __init__(
        self,
        hertz: float = 10.0,
        listen: Callable[[Bytes], None] | None = None,
        beside: int = 0,
    ) -> None:
        """`listen` hears once a second. `beside` bytes are held by a process that belongs to the run and is
        not below this one.
        """
        self._beside = beside
        self.governor: Callable[[Bytes], None] | None = None
        """Hears of every reading, in the watching thread; may be set while it runs."""
        self._period_seconds = 1.0 / hertz
        self._listen: Callable[[Bytes], None] | None = listen
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

    def now(self) -> Bytes:
        """What is charged at this moment, of the tree and beside it."""
        return Bytes(charged_bytes() + self._beside)

    def _look(self) -> Bytes:
        with self._lock:
            tree, own = _charged_tree(os.getpid(), Path("/"), _overlap)
            now = Bytes(tree + self._beside)
            others = max(0, now - own)  # the exact peak is this process's alone
            self._peak = Bytes(max(self._peak, now, self._exact.peak() + others))
            # A new mark each time: file pages that came in since the last one would count as charged.
            if self._exact.resettable:
                self._exact.reset()
            return now

    def _run(self) -> None:
        last = 0.0
        while not self._stop.wait(self._period_seconds):
            now = self._look()
            if (governor := self.governor) is not None:
                governor(now)
            # The trace needs no more than one point a second; the peak takes every reading.
            if self._listen and time.monotonic() - last >= 1.0:
                last = time.monotonic()
                try:
                    self._listen(now)
                except CaudalError:  # a full disk, say: the next event tells whoever can end the run
                    self._listen = None

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._look()

"""What a child and all its processes hold and use, seen from its parent.

In a memory group of its own the kernel's count is exact and cheap. Without one, proportional sizes are added
up: a forked worker shares most of its pages with its parent, and a sum of resident sizes would charge peers
for the same page several times.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

from caudal.memory.meters import descendants

PERIOD_SECONDS = 0.02
_TICKS = os.sysconf("SC_CLK_TCK")


class Meter:
    """Samples the charged bytes (anonymous + shared) of the tree under `pid` until it is stopped."""

    def __init__(self, pid: int, group: Path | None) -> None:
        self._pid, self._group = pid, group
        self._stop = threading.Event()
        self.base, self.peak = 0, 0
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def name(self) -> str:
        """Which of the two meters this is."""
        return "proportional sizes" if self._group is None else "memory group"

    def charged(self) -> int:
        """Bytes held now."""
        if self._group is not None:
            return _group_bytes(self._group)
        return sum(_proportional_bytes(one) for one in descendants(self._pid))

    def start(self) -> None:
        """What is held now is the base; the peak is looked for from here."""
        self.base = self.peak = self.charged()
        self._thread.start()

    def stop(self) -> None:
        """End of the search."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(PERIOD_SECONDS):
            self.peak = max(self.peak, self.charged())


def _group_bytes(group: Path) -> int:
    stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    anonymous = int(stat.get("total_rss", stat.get("anon", 0)))  # version 1 of groups, or 2
    return anonymous + int(stat.get("total_shmem", stat.get("shmem", 0)))


def _proportional_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:  # it ended meanwhile
        return 0
    sizes = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    return 1024 * (sizes.get("Pss_Anon", 0) + sizes.get("Pss_Shmem", 0))


def processor_seconds(pid: int) -> float:
    """Processor time of the tree so far, ended children included."""
    total = 0
    for one in descendants(pid):
        try:
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += sum(int(field) for field in fields[11:15])  # its own and its ended children's
    return total / _TICKS

"""Which job begins next on a machine: the one whose turn it is and whose bytes are there. One pure function.

Turns go by priority, then to the project of which the fewest run, then by place in line. Who is passed by
others gains priority, and at some point nobody is let past any more: no job waits for ever. Reads no row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

PASSES_A_RANK = 4
PATIENCE = 8
"""So often may others begin before a job that is first in turn and too large for what is free now."""


@dataclass(frozen=True, slots=True)
class Room:
    """What a machine has for jobs, together and what is free of it; bytes."""

    ram: int
    vram: int
    free_ram: int
    free_vram: int
    free_places: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """A job in line. `ram` and `vram` are what it will hold; `None`: nobody knows, so all there is.

    `passed` counts the jobs that came later and began earlier.
    """

    id: str
    project: str
    priority: int
    passed: int
    line: int
    ram: int | None
    vram: int | None

    def needs(self, room: Room) -> tuple[int, int]:
        """Bytes of RAM and VRAM on that machine."""
        ram = room.ram if self.ram is None else self.ram
        return ram, room.vram if self.vram is None else self.vram


def rank(candidate: Candidate, running: Mapping[str, int]) -> tuple[int, int, int]:
    """The order of turns; the least is first."""
    aged = candidate.priority + candidate.passed // PASSES_A_RANK
    return -aged, running.get(candidate.project, 0), candidate.line


def choose(queued: Iterable[Candidate], running: Mapping[str, int], room: Room) -> Candidate | None:
    """The job that begins now; `running` counts those of each project that run. `None`: none does."""
    if room.free_places < 1:
        return None
    for candidate in sorted(queued, key=lambda one: rank(one, running)):
        ram, vram = candidate.needs(room)
        if ram > room.ram or vram > room.vram:
            continue  # for a larger machine; it keeps nobody waiting here
        if ram <= room.free_ram and vram <= room.free_vram:
            return candidate
        if candidate.passed >= PATIENCE:
            return None
    return None

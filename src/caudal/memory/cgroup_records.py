"""What a reading of a memory control group holds: the group, the levels above it, what is charged to each.

Records alone; `cgroup` reads them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from caudal.core.units import Bytes


def least(values: Iterable[Bytes | None]) -> Bytes | None:
    """The smallest of those that are set."""
    return min((value for value in values if value is not None), default=None)


@dataclass(frozen=True, slots=True)
class Charge:
    """What the kernel counts against a group and those below it.

    `usage` is the whole count, page cache with it. `anonymous` and `shared` are what processes took, mapped
    or in `/dev/shm`; `dirty` is page cache that must be written before it can be given back; `reclaimable` is
    what the kernel takes back at need: clean page cache and, as far as it tells, caches of its own; `kernel`
    is its own part (page tables, stacks, slabs), of which v1 does not tell what can be taken back; `swap`
    lies on disk.
    """

    anonymous: Bytes
    shared: Bytes
    dirty: Bytes
    reclaimable: Bytes
    kernel: Bytes | None
    swap: Bytes | None
    usage: Bytes | None

    @property
    def charged(self) -> Bytes:
        """What Caudal counts: anonymous and shared pages."""
        return Bytes(self.anonymous + self.shared)

    @property
    def held(self) -> Bytes:
        """What would stay if the kernel took back all that it can: nearer than this no limit can be kept."""
        if self.usage is None:
            return Bytes(self.charged + self.dirty)
        return Bytes(max(self.charged, self.usage - self.reclaimable))


@dataclass(frozen=True, slots=True)
class Level:
    """One group on the way up. Past `most` the kernel kills, past `high` it makes whoever asks wait.

    `name` is its path in the tree as seen here; `swap` how much it may have on disk; `throttled` how often
    `high` was passed, `oom_kills` how often the kernel killed for want of memory (in v2 in the groups below,
    too; `oom_kills_here` leaves those out). Unknown figures, and limits that are not set, are `None`.
    """

    name: str
    most: Bytes | None
    high: Bytes | None = None
    swap: Bytes | None = None
    charge: Charge | None = None
    throttled: int | None = None
    oom_kills: int | None = None
    oom_kills_here: int | None = None
    kills_together: bool = False
    kills_off: bool = False

    @property
    def limit(self) -> Bytes | None:
        """The smaller of the two limits."""
        return least((self.most, self.high))


@dataclass(frozen=True, slots=True)
class Group:
    """One reading. `version` is 0 where no memory group was found; unknown figures are `None`.

    `path` is the nearest group that counts memory, which `charged` is of; `limit` the least of all `levels`.
    `oom_kills` are those in this group (in v2 and in those below it, too); `oom_kills_here` leaves those
    below out. `exact` is false where this process's group cannot be seen, only one above it.
    """

    version: int
    path: Path | None
    limit: Bytes | None
    charged: Bytes | None
    oom_kills: int | None
    oom_kills_here: int | None = None
    levels: tuple[Level, ...] = ()
    exact: bool = True

    @property
    def charge(self) -> Charge | None:
        """What the kernel counts against this group."""
        return self.levels[0].charge if self.levels else None

    @property
    def limiting(self) -> Level | None:
        """The level whose limit counts, or `None` where none is set."""
        return next((level for level in self.levels if level.limit == self.limit is not None), None)

    @property
    def room(self) -> Bytes | None:
        """What may still be taken before some level is full, or `None` where no limit is set or seen."""
        rooms = [
            level.limit - level.charge.held
            for level in self.levels
            if level.limit is not None and level.charge is not None
        ]
        return Bytes(max(0, min(rooms))) if rooms else None

    @property
    def swap_limit(self) -> Bytes | None:
        """What this group may have on disk, or `None` where no level says."""
        return least(level.swap for level in self.levels)

    @property
    def kills_together(self) -> bool:
        """Whether a kill for memory ends every process of the group, a watcher with them."""
        return any(level.kills_together for level in self.levels)

    @property
    def kills_off(self) -> bool:
        """Whether processes that pass the limit are stopped until there is room, instead of killed (v1)."""
        return any(level.kills_off for level in self.levels)

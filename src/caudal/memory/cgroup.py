"""Reads what the memory control group of this process allows, holds and has seen: v2, v1, both or none.

The limit that counts is the smallest on the way up, because each group is also limited by those above it.
What a group may still take is less than its limit: page cache that is clean is given back at need, all else
is held, and under the limit of a group above the neighbours hold their part too.

Paths are taken below `root`, so that tests can read recorded trees. Where the groups are is
`cgroup_places`; nothing here changes a group.
"""

from __future__ import annotations

from pathlib import Path

from caudal.core.units import Bytes
from caudal.memory import cgroup_places
from caudal.memory.cgroup_places import Place
from caudal.memory.cgroup_records import Charge, Group, Level, least
from caudal.memory.kernel_files import number, table

__all__ = ["Charge", "Group", "Level", "look", "read"]

# v1 writes "no limit" as the largest page-aligned number; no machine has this much.
_UNLIMITED = 2**60


def read(root: Path = Path("/"), pid: str = "self") -> Group:
    """Read the memory group of process `pid`."""
    return look(cgroup_places.find(root, pid).memory)


def look(place: Place | None) -> Group:
    """Read the figures of the group at `place`: for who comes again and again, and has found it once."""
    if place is None:
        return Group(0, None, None, None, None)
    path, levels = _v1(place) if place.version == 1 else _v2(place)
    if path is None:
        return Group(0, None, None, None, None)
    own = levels[0]
    return Group(
        version=place.version,
        path=path,
        limit=least(level.limit for level in levels),
        charged=None if own.charge is None else own.charge.charged,
        oom_kills=own.oom_kills,
        oom_kills_here=own.oom_kills_here,
        levels=tuple(levels),
        exact=place.exact,
    )


def _v1(place: Place) -> tuple[Path, list[Level]]:
    folders = [place.folder]
    for above in place.way_up()[1:]:
        if number(above / "memory.use_hierarchy") == 0:
            break  # this one does not count what is below it
        folders.append(above)
    stats = [table(folder / "memory.stat") for folder in folders]
    levels = [_level_v1(folder, place.top, stat) for folder, stat in zip(folders, stats, strict=True)]
    # The kernel tells the least limit of all groups above, also of those that a container does not show.
    hidden = _set(stats[0].get("hierarchical_memory_limit"))
    seen = least(level.limit for level in levels)
    if hidden is not None and (seen is None or hidden < seen):
        levels.append(Level("above the mount", hidden, charge=levels[0].charge))
    return place.folder, levels


def _level_v1(folder: Path, top: Path, stat: dict[str, int]) -> Level:
    most = _set(number(folder / "memory.limit_in_bytes"))
    with_swap = _set(number(folder / "memory.memsw.limit_in_bytes"))
    control = table(folder / "memory.oom_control")
    return Level(
        name=_name(folder, top),
        most=most,
        swap=None if with_swap is None else Bytes(max(0, with_swap - (most or 0))),
        charge=_charge_v1(folder, stat),
        oom_kills=control.get("oom_kill"),
        oom_kills_here=control.get("oom_kill"),
        kills_off=control.get("oom_kill_disable") == 1,
    )


def _charge_v1(folder: Path, stat: dict[str, int]) -> Charge | None:
    # Without `total_` the figures are of this group alone, though its limit is for those below it, too.
    if "total_rss" not in stat:
        return None
    anonymous = stat["total_rss"]
    # Old kernels do not tell shared pages; they are on the lists of pages without a file, with the anonymous.
    without_file = stat.get("total_inactive_anon", 0) + stat.get("total_active_anon", 0)
    file = stat.get("total_inactive_file", 0) + stat.get("total_active_file", 0)
    dirty = stat.get("total_dirty", 0) + stat.get("total_writeback", 0)
    return Charge(
        anonymous=Bytes(anonymous),
        shared=Bytes(stat.get("total_shmem", max(0, without_file - anonymous))),
        dirty=Bytes(dirty),
        reclaimable=Bytes(max(0, file - dirty)),
        kernel=_set(number(folder / "memory.kmem.usage_in_bytes")),
        swap=_set(stat.get("total_swap")),
        usage=_set(number(folder / "memory.usage_in_bytes")),
    )


def _v2(place: Place) -> tuple[Path | None, list[Level]]:
    # A group in which the controller is not switched on has none of these files: the next above counts it.
    way = [
        folder
        for folder in place.way_up()
        if (folder / "memory.stat").exists() or (folder / "memory.max").exists()
    ]
    return (way[0] if way else None), [_level_v2(folder, place.top) for folder in way]


def _level_v2(folder: Path, top: Path) -> Level:
    events = table(folder / "memory.events")
    return Level(
        name=_name(folder, top),
        most=_set(number(folder / "memory.max")),
        high=_set(number(folder / "memory.high")),
        swap=_set(number(folder / "memory.swap.max")),
        charge=_charge_v2(folder),
        throttled=events.get("high"),
        oom_kills=events.get("oom_kill"),
        oom_kills_here=table(folder / "memory.events.local").get("oom_kill"),
        kills_together=number(folder / "memory.oom.group") == 1,
    )


def _charge_v2(folder: Path) -> Charge | None:
    stat = table(folder / "memory.stat")
    if "anon" not in stat:
        return None
    file = stat.get("inactive_file", 0) + stat.get("active_file", 0)
    dirty = stat.get("file_dirty", 0) + stat.get("file_writeback", 0)
    # Kernels before 5.18 do not add their own part up.
    parts = ("kernel_stack", "pagetables", "sec_pagetables", "percpu", "slab")
    return Charge(
        anonymous=Bytes(stat["anon"]),
        shared=Bytes(stat.get("shmem", 0)),
        dirty=Bytes(dirty),
        reclaimable=Bytes(max(0, file - dirty) + stat.get("slab_reclaimable", 0)),
        kernel=Bytes(stat.get("kernel", sum(stat.get(part, 0) for part in parts))),
        swap=_set(number(folder / "memory.swap.current")),
        usage=_set(number(folder / "memory.current")),
    )


def _name(folder: Path, top: Path) -> str:
    return "/" if folder == top else f"/{folder.relative_to(top)}"


def _set(value: int | None) -> Bytes | None:
    return None if value is None or value >= _UNLIMITED else Bytes(value)

"""What the memory control group of this process allows and has seen: v2, v1, both or none.

The limit that counts is the smallest on the way up to the root, because each group is also limited by
the ones above it. Paths are taken below `root`, so that tests can read recorded trees.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from caudal.core.units import Bytes

# v1 writes "no limit" as the largest page-aligned number; no machine has this much.
_UNLIMITED = 2**60


@dataclass(frozen=True, slots=True)
class Group:
    """One reading. `version` is 0 where no memory group was found; unknown figures are `None`."""

    version: int
    path: Path | None
    limit: Bytes | None
    charged: Bytes | None
    oom_kills: int | None


def read(root: Path = Path("/"), pid: str = "self") -> Group:
    """Read the memory group of process `pid`."""
    try:
        lines = (root / "proc" / pid / "cgroup").read_text().splitlines()
    except OSError:
        return Group(0, None, None, None, None)
    v1 = next((line for line in lines if "memory" in line.split(":")[1].split(",")), None)
    if v1 is not None:
        folder = _folder(root / "sys/fs/cgroup/memory", v1.split(":", 2)[2])
        if folder is not None:
            return _read_v1(folder, root / "sys/fs/cgroup/memory")
    v2 = next((line for line in lines if line.startswith("0::")), None)
    if v2 is not None:
        top = root / "sys/fs/cgroup"
        top = top if (top / "cgroup.controllers").exists() else top / "unified"
        folder = _folder(top, v2[3:])
        if folder is not None and "memory" in _text(top / "cgroup.controllers").split():
            return _read_v2(folder, top)
    return Group(0, None, None, None, None)


def _folder(top: Path, inside: str) -> Path | None:
    # In a container the path may be the host's: then the mount's own top is the group.
    for folder in (top / inside.lstrip("/"), top):
        if folder.is_dir():
            return folder
    return None


def _read_v1(folder: Path, top: Path) -> Group:
    stat = _table(folder / "memory.stat")
    limit = _least(_number(level / "memory.limit_in_bytes") for level in _way_up(folder, top))
    charged = None if "total_rss" not in stat else Bytes(stat["total_rss"] + stat.get("total_shmem", 0))
    return Group(1, folder, limit, charged, _table(folder / "memory.oom_control").get("oom_kill"))


def _read_v2(folder: Path, top: Path) -> Group:
    stat = _table(folder / "memory.stat")
    limit = _least(
        _number(level / name) for level in _way_up(folder, top) for name in ("memory.max", "memory.high")
    )
    charged = None if "anon" not in stat else Bytes(stat["anon"] + stat.get("shmem", 0))
    return Group(2, folder, limit, charged, _table(folder / "memory.events").get("oom_kill"))


def _way_up(folder: Path, top: Path) -> list[Path]:
    levels = [folder]
    while levels[-1] != top and top in levels[-1].parents:
        levels.append(levels[-1].parent)
    return levels


def _least(values: Iterable[int | None]) -> Bytes | None:
    known = [value for value in values if value is not None and value < _UNLIMITED]
    return Bytes(min(known)) if known else None


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _table(path: Path) -> dict[str, int]:
    rows = (line.split() for line in _text(path).splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdigit()}

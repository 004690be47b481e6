"""Every limit on host memory that this machine sets, and what is left under them."""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass
from pathlib import Path

from caudal.core.units import Bytes
from caudal.memory import cgroup

DEFAULT_SHARE = 0.8


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit: `bytes` is `None` where it is not set or cannot be seen."""

    name: str
    bytes: Bytes | None


def meminfo(root: Path = Path("/")) -> dict[str, int]:
    """`/proc/meminfo` in bytes; empty where it cannot be read."""
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
    except OSError:
        return {}
    rows = (line.replace(":", "").split() for line in lines)
    return {row[0]: int(row[1]) * 1024 for row in rows if len(row) == 3}


def _rlimit(which: int) -> Bytes | None:
    soft, _hard = resource.getrlimit(which)
    return None if soft == resource.RLIM_INFINITY else Bytes(soft)


def shared_memory_bytes(root: Path = Path("/")) -> Bytes | None:
    """The size of `/dev/shm`, or `None` where there is none."""
    try:
        disk = os.statvfs(root / "dev/shm")
    except OSError:
        return None
    return Bytes(disk.f_frsize * disk.f_blocks)


def ram_limits(root: Path = Path("/")) -> list[Limit]:
    """Every limit that bears on this process."""
    group = cgroup.read(root)
    total = meminfo(root).get("MemTotal")
    return [
        Limit("machine", Bytes(total) if total else None),
        Limit(f"cgroup v{group.version}" if group.version else "cgroup", group.limit),
        Limit("rlimit address space", _rlimit(resource.RLIMIT_AS)),
        Limit("rlimit data", _rlimit(resource.RLIMIT_DATA)),
    ]


def available_ram(root: Path = Path("/")) -> Bytes:
    """What this process may still take: under the smallest limit, and free on the machine.

    Raises:
        RuntimeError: no meter on this machine can tell (no `/proc/meminfo` and no limit is set).
    """
    group = cgroup.read(root)
    info = meminfo(root)
    room = [int(limit.bytes) for limit in ram_limits(root) if limit.bytes is not None]
    if group.limit is not None and group.charged is not None:
        room.append(group.limit - group.charged)
    if "MemAvailable" in info:
        room.append(info["MemAvailable"])
    if not room:
        raise RuntimeError("no meter on this machine shows how much memory there is")
    return Bytes(max(0, min(room)))

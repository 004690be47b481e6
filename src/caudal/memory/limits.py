"""Every limit on host memory that bears on this process, what is held under it, and what is left.

Adds up what the meters beside it see; decides nothing. How much of it a run takes is `runs/machine.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from caudal.core.units import Bytes
from caudal.memory import cgroup, kernel, process, rlimits
from caudal.memory.cgroup_records import Group
from caudal.memory.kernel import meminfo

DEFAULT_SHARE = 0.8
_STEPS = 32  # so that a budget is the same tomorrow where nobody else is


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit: `bytes` is `None` where it is not set or cannot be seen.

    `held` is what counts against it now, by this process and whoever else is under it, less what the kernel
    takes back at need; `None` where that cannot be seen. `shared`: others are under it, too.
    """

    name: str
    bytes: Bytes | None
    held: Bytes | None = None
    shared: bool = True

    @property
    def room(self) -> Bytes | None:
        """What may still be taken under it; all of it where nobody tells what is held."""
        return None if self.bytes is None else Bytes(max(0, self.bytes - (self.held or 0)))

    def others(self, own: int) -> Bytes:
        """What of it is not `own`, in whole steps: what comes and goes on any machine is none."""
        if self.bytes is None or self.held is None or not self.shared:
            return Bytes(0)
        step = max(1, self.bytes // _STEPS)
        return Bytes(min(max(0, self.held - own) // step * step, self.bytes))


@dataclass(frozen=True, slots=True)
class Swap:
    """How much may lie on disk instead of in memory, and how much does, of this group or else of all.

    A run that swaps is not killed; it waits for the disk at every step.
    """

    allowed: Bytes
    used: Bytes


def ram_limits(root: Path = Path("/"), group: Group | None = None) -> list[Limit]:
    """Every limit that bears on this process; `group` spares reading its memory group again."""
    info = meminfo(root)
    total, available = info.get("MemTotal"), info.get("MemAvailable")
    machine = Limit(
        "machine",
        None if total is None else Bytes(total),
        None if total is None or available is None else Bytes(total - available),
    )
    return [
        machine,
        *_of_group(cgroup.read(root) if group is None else group),
        *_of_process(root),
        *_of_commitments(root),
    ]


def available_ram(root: Path = Path("/")) -> Bytes:
    """What this process may still take under every limit, the neighbours' part counted.

    Raises:
        RuntimeError: no meter on this machine can tell (no `/proc/meminfo` and no limit is set).
    """
    room = [limit.room for limit in ram_limits(root) if limit.room is not None]
    if not room:
        raise RuntimeError("no meter on this machine shows how much memory there is")
    return min(room)


def swap(root: Path = Path("/"), group: Group | None = None) -> Swap | None:
    """Swap that this process may use, or `None` where the kernel does not tell."""
    info = meminfo(root)
    if "SwapTotal" not in info:
        return None
    group = cgroup.read(root) if group is None else group
    allowed = min(info["SwapTotal"], info["SwapTotal"] if group.swap_limit is None else group.swap_limit)
    used = group.charge.swap if group.charge is not None else None
    return Swap(Bytes(allowed), Bytes(info["SwapTotal"] - info.get("SwapFree", 0)) if used is None else used)


def _of_group(group: Group) -> Iterator[Limit]:
    name = f"cgroup v{group.version}" if group.version else "cgroup"
    if group.limit is None:
        yield Limit(name, None)
    for level in group.levels:
        held = None if level.charge is None else level.charge.held
        if level.most is not None:
            yield Limit(f"{name} {level.name}", level.most, held)
        if level.high is not None:  # slows down instead of killing; a budget keeps below it all the same
            yield Limit(f"{name} {level.name} memory.high", level.high, held)


def _of_process(root: Path) -> Iterator[Limit]:
    found = rlimits.read(root)
    status = process.status("self", root)
    for name, limit, held in (
        ("address space", found and found.address_space, "VmSize"),
        ("data", found and found.data, "VmData"),
    ):
        soft = limit.soft if limit else None
        used = Bytes(status[held]) if held in status else None
        yield Limit(f"rlimit {name}", None if soft is None else Bytes(soft), used, shared=False)


def _of_commitments(root: Path) -> Iterator[Limit]:
    settings = kernel.read(root)
    if settings.overcommit == kernel.STRICT:
        yield Limit("commit limit", settings.commit_limit, settings.committed)

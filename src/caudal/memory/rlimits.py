"""The limits of this process itself (`ulimit`): addresses, data, locked pages, open files, tasks.

A soft limit is what counts; a process may raise it up to the hard one. Sets none.
"""

from __future__ import annotations

import resource
from dataclasses import dataclass
from pathlib import Path

from caudal.memory.kernel_files import text

# By the names of `/proc/self/limits`.
_KNOWN = {
    "Max address space": ("address_space", resource.RLIMIT_AS),
    "Max data size": ("data", resource.RLIMIT_DATA),
    "Max resident set": ("resident_set", resource.RLIMIT_RSS),
    "Max locked memory": ("locked", resource.RLIMIT_MEMLOCK),
    "Max open files": ("files", resource.RLIMIT_NOFILE),
    "Max processes": ("tasks", resource.RLIMIT_NPROC),
}


@dataclass(frozen=True, slots=True)
class Rlimit:
    """A soft and a hard limit; `None` is none at all."""

    soft: int | None
    hard: int | None


@dataclass(frozen=True, slots=True)
class Rlimits:
    """Bytes, but `files` and `tasks` are counts: open files, and processes and threads of this user.

    `resident_set` can be set and does nothing: Linux has not kept it since 2.4.
    """

    address_space: Rlimit
    data: Rlimit
    resident_set: Rlimit
    locked: Rlimit
    files: Rlimit
    tasks: Rlimit


def read(root: Path = Path("/")) -> Rlimits | None:
    """The limits of this process, or `None` where they cannot be seen."""
    lines = text(root / "proc/self/limits").splitlines()
    if not lines:
        return _asked() if root == Path("/") else None
    found = {}
    for name, (field, _which) in _KNOWN.items():
        line = next((line for line in lines if line.startswith(name)), None)
        if line is None:
            return None
        soft, hard = line.removeprefix(name).split()[:2]
        found[field] = Rlimit(_count(soft), _count(hard))
    return Rlimits(**found)


def _count(word: str) -> int | None:
    return int(word) if word.isdigit() else None


def _asked() -> Rlimits:
    found = {}
    for field, which in _KNOWN.values():
        soft, hard = resource.getrlimit(which)
        found[field] = Rlimit(*(None if n == resource.RLIM_INFINITY else n for n in (soft, hard)))
    return Rlimits(**found)

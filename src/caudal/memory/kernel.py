"""Settings of the kernel that decide how memory is given out: overcommitting, mappings, huge pages.

Changes none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from caudal.core.units import Bytes
from caudal.memory.kernel_files import number, sizes, text

STRICT = 2
"""The mode of overcommitting in which bytes are taken when they are reserved, not when they are touched."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Unknown figures are `None`.

    `overcommit` is 0 (refuses what is hopeless), 1 (never refuses) or `STRICT`; in the last, all processes
    together may reserve `commit_limit`, and have reserved `committed`. `mappings` is how many a process may
    have. `huge_pages` is `always`, `madvise` or `never`.
    """

    overcommit: int | None
    commit_limit: Bytes | None
    committed: Bytes | None
    mappings: int | None
    huge_pages: str | None


def meminfo(root: Path = Path("/")) -> dict[str, int]:
    """`/proc/meminfo` in bytes; empty where it cannot be read."""
    return sizes(root / "proc/meminfo")


def read(root: Path = Path("/")) -> Settings:
    """What is set."""
    info = meminfo(root)
    chosen = re.search(r"\[(\w+)\]", text(root / "sys/kernel/mm/transparent_hugepage/enabled"))
    return Settings(
        overcommit=number(root / "proc/sys/vm/overcommit_memory"),
        commit_limit=Bytes(info["CommitLimit"]) if "CommitLimit" in info else None,
        committed=Bytes(info["Committed_AS"]) if "Committed_AS" in info else None,
        mappings=number(root / "proc/sys/vm/max_map_count"),
        huge_pages=chosen[1] if chosen else None,
    )

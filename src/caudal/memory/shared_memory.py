"""`/dev/shm`: how much other programs may share through memory, and what lies there.

Caudal shares through memory that has no name, so that nothing is left behind; a user's own loaders may need
this, and what somebody left there is charged until it is removed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from caudal.core.units import Bytes


@dataclass(frozen=True, slots=True)
class SharedMemory:
    """Bytes of the file system; `free` is what this user may still write."""

    size: Bytes
    used: Bytes
    free: Bytes


def read(root: Path = Path("/")) -> SharedMemory | None:
    """What the file system says, or `None` where there is none."""
    try:
        disk = os.statvfs(root / "dev/shm")
    except OSError:
        return None
    return SharedMemory(
        size=Bytes(disk.f_frsize * disk.f_blocks),
        used=Bytes(disk.f_frsize * (disk.f_blocks - disk.f_bfree)),
        free=Bytes(disk.f_frsize * disk.f_bavail),
    )

"""Which folders lie in memory: a file there is charged as long as it exists, whoever has it mapped or not."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from caudal.core.caches import user_cache
from caudal.memory.kernel_files import text

_IN_MEMORY = frozenset({"tmpfs", "ramfs", "devtmpfs", "hugetlbfs"})


def in_memory(folder: Path, root: Path = Path("/")) -> bool:
    """Whether what is written into `folder` stays in memory; `False` where the kernel does not tell.

    A tree of layers (overlay) whose top layer lies in memory does not say so.
    """
    try:
        device = folder.stat().st_dev
    except OSError:
        return False
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in text(root / "proc/self/mountinfo").splitlines():
        fields, _dash, kind = line.partition(" - ")
        if fields.split()[2:3] == [wanted]:
            return kind.split(" ", 1)[0] in _IN_MEMORY
    return False


def on_disk(folder: Path) -> Path | None:
    """`folder`, or where that lies in memory another one that takes files; `None`: none is on a disk."""
    return next((one for one in (folder, *_others()) if _takes_files(one) and not in_memory(one)), None)


def _others() -> Iterator[Path]:
    """Where programs may leave what is large and of no lasting use."""
    yield user_cache()
    yield Path("/var/tmp")
    yield Path(tempfile.gettempdir())
    yield Path.cwd()


def _takes_files(folder: Path) -> bool:
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)

"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

from caudal.core.errors import DiskFull
from caudal.core.messages import _

PART = ".part"


def is_disk_full(error: BaseException) -> bool:
    """Whether an error means that no space was left; libraries in other languages say it in words."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return "No space left on device" in str(error)


def disk_full(path: Path) -> DiskFull:
    """The error for a disk that is full."""
    return DiskFull(
        _("No space is left on the disk for {path}.").format(path=path),
        _("Free some space and run the same command again; what was finished is kept."),
        path=str(path),
    )


def write_whole(
    path: Path, write: Callable[[Path], object], check: Callable[[Path], None] | None = None
) -> None:
    """Let `write` fill a temporary file beside `path`, flush it, `check` it, and rename it into place.

    A file that was there before stays until the new one is whole.

    Raises:
        DiskFull: no space was left; the temporary file is gone, the old file is untouched.
    """
    part = path.with_name(path.name + PART)
    try:
        write(part)
        sync(part)
        if check:
            check(part)
        part.replace(path)
        sync(path.parent)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if is_disk_full(error):
            raise disk_full(path) from error
        raise


def sync(path: Path) -> None:
    """Have the system write a file, or a folder's names, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

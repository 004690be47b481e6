"""Paths as people type them, made into paths that this system has.

Under WSL people paste Windows paths; the drives are mounted as folders there.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from caudal.core.errors import UsageError
from caudal.core.messages import _

_WINDOWS = re.compile(r"([A-Za-z]):[\\/](.*)", re.DOTALL)


def local_path(text: str, mounts: Path = Path("/mnt"), *, must_exist: bool = True) -> Path:
    r"""`text` as a path of this system: `~` is expanded, and `C:\data\x.tif` becomes `/mnt/c/data/x.tif`.

    Windows paths are translated on Linux and WSL alone, with the drives found under `mounts`. For a file that
    is yet to be written pass `must_exist=False`: then only its drive has to be there. All else is unchanged,
    whether it exists or not.

    Raises:
        UsageError: a Windows path with nothing behind it here, or a `~name` that is nobody.
    """
    match = _WINDOWS.fullmatch(text) if os.name == "posix" else None
    if match is None:
        return _expanded(text)
    drive = mounts / match[1].lower()
    path = drive.joinpath(*(part for part in re.split(r"[\\/]+", match[2]) if part))
    if not (path if must_exist else drive).exists():
        raise UsageError(
            _("{text} is a Windows path, and there is no {path} on this system.").format(
                text=text, path=path
            ),
            _("Check the name, or give the path as this system has it."),
            path=text,
        )
    return path


def _expanded(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise UsageError(
            _("{text} names a user that is not known here.").format(text=text),
            _("Write the whole path."),
            path=text,
        ) from None

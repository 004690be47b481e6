"""The folders that this process may read data from, where whoever started it said so; else the whole disk.

A job of the service is told by its environment. What a person names by hand was checked before; this is for
what data themselves name: the rows of a table, a link in a folder, the parts of a model. Every opening of
data asks here, and what counts is where a file really lies, behind all links.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from caudal.core.errors import DataError
from caudal.core.messages import _

VARIABLE = "CAUDAL_READS"
"""The folders as a JSON list; not set where everything may be read."""
# Without O_NONBLOCK a named pipe would make the caller wait for ever.
_PLAIN = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK


def environment(folders: Iterable[str | Path]) -> dict[str, str]:
    """What a child process needs, so that it reads data from these folders alone."""
    return {VARIABLE: json.dumps([str(folder) for folder in folders])}


def is_confined() -> bool:
    """Whether only some folders may be read."""
    return VARIABLE in os.environ


def check_path(path: str | bytes | Path) -> None:
    """Refuse what lies elsewhere, whether it is there or not; ask before anything is looked at.

    Raises:
        DataError: it lies, behind all links, in none of the folders.
    """
    if VARIABLE in os.environ:
        try:
            real = os.path.realpath(os.fsdecode(path))
        except (OSError, ValueError):  # it cannot be a name
            raise _outside(path) from None
        _check(real, path)


def check_remote(name: str) -> None:
    """Refuse an address on another machine; `name` is how it is shown.

    Raises:
        DataError: only some folders may be read.
    """
    if VARIABLE in os.environ:
        raise DataError(
            _("{name} lies elsewhere, and a job of the service reads its folders alone.").format(name=name),
            _("Send the file to the service, or have the service fetch it, and name it there."),
            path=name,
        )


def open_plain(path: str | Path, flags: int = _PLAIN) -> int:
    """A file descriptor for reading; the caller closes it.

    Raises:
        OSError, ValueError: as `os.open`.
        DataError: it lies, behind all links, in none of the folders that may be read.
    """
    if VARIABLE not in os.environ:
        return os.open(path, flags)
    try:
        handle = os.open(path, flags)
    except (OSError, ValueError):
        check_path(path)  # nobody is told what is there outside of the folders
        raise
    try:
        # What was opened counts, not what lies under that name by now.
        _check(_path_of(handle, path), path)
    except BaseException:  # whatever it is, Ctrl-C too: nobody else knows the descriptor
        os.close(handle)
        raise
    return handle


def _path_of(handle: int, path: str | Path) -> str:
    try:
        return str(Path(f"/proc/self/fd/{handle}").readlink())
    except OSError:  # a system without it
        return os.path.realpath(path)


def _check(real: str, path: str | bytes | Path) -> None:
    if not any(real == folder or real.startswith(below) for folder, below in _folders(os.environ[VARIABLE])):
        raise _outside(path)


@lru_cache(maxsize=8)
def _folders(text: str) -> tuple[tuple[str, str], ...]:
    """Each folder where it really is, and how names below it begin."""
    real = [os.path.realpath(folder) for folder in json.loads(text)]
    return tuple((folder, folder.rstrip(os.sep) + os.sep) for folder in real)


def _outside(path: str | bytes | Path) -> DataError:
    name = os.fsdecode(path).encode("utf-8", "replace").decode()
    return DataError(
        _("{path} leads out of the folders that may be read.").format(path=name),
        _("Put the file itself into the data set, or have its folder named as a root of the service."),
        path=name,
    )

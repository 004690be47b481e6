"""Opening a file, and saying in one sentence why it cannot be read.

Shared by the readers; it knows no format.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from caudal.core.errors import UnreadableFile
from caudal.core.messages import _


def unreadable(path: Path, why: str, hint: str = "") -> UnreadableFile:
    """The error for a file whose content is the matter: the fact is `why`, a clause without a full stop."""
    return UnreadableFile(
        _("{path} cannot be read: {why}.").format(path=path, why=why),
        hint or _("Fetch or write the file again; if that does not help, leave it out."),
        path=path,
    )


def open_for_reading(path: Path) -> tuple[int, int]:
    """A file descriptor and the file's size in bytes.

    Raises:
        UnreadableFile: missing, a folder, no permission, not a plain file, or empty.
    """
    try:
        # Without O_NONBLOCK a named pipe would make the caller wait for ever.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        raise _refused(path, error) from None
    try:
        state = os.fstat(fd)
        if stat.S_ISDIR(state.st_mode):
            raise unreadable(
                path, _("it is a folder"), _("Name a file in it, or pass the folder as the data.")
            )
        if not stat.S_ISREG(state.st_mode):
            raise unreadable(path, _("it is not a plain file"), _("Copy its content to a file first."))
        if state.st_size == 0:
            raise unreadable(path, _("it is empty"))
    except BaseException:
        os.close(fd)
        raise
    return fd, state.st_size


def _refused(path: Path, error: OSError | ValueError) -> UnreadableFile:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return unreadable(path, _("there is no such file"), _("Check the path."))
    if isinstance(error, PermissionError):
        return unreadable(
            path, _("permission is denied"), _("Give yourself read permission, for instance with chmod.")
        )
    why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return unreadable(path, why, _("Check the path and the disk."))


def read_exactly(fd: int, path: Path, offset: int, buffer: memoryview) -> None:
    """Fill `buffer` with the bytes at `offset`; safe from several threads, as nothing seeks.

    Raises:
        UnreadableFile: the file ends before, or the disk fails.
    """
    assert fd >= 0, "the source was closed"
    done = 0
    while done < len(buffer):
        try:
            count = os.preadv(fd, [buffer[done:]], offset + done)
        except OSError as error:
            raise unreadable(path, error.strerror or str(error), _("Check the disk.")) from None
        if count == 0:
            raise unreadable(path, _("it ends before byte {end}").format(end=offset + len(buffer)))
        done += count

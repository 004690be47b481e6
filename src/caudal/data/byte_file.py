"""Bytes of a file, wherever it lies: read at an offset, from any thread; one sentence when that fails."""

from __future__ import annotations

import io
import os
import stat
import threading
from pathlib import Path
from typing import Protocol

from caudal.core.confined import open_plain
from caudal.core.errors import UnreadableFile
from caudal.core.messages import _
from caudal.data.unreadable import unreadable


class ByteFile(Protocol):
    """A file that is open for reading. Every method may be called from several threads at once."""

    name: str
    size_bytes: int

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` (writable bytes) with what lies at `offset`.

        Raises:
            UnreadableFile: the file ends before, or the disk or the network fails.
        """
        ...

    def close(self) -> None:
        """Give it back; safe to call twice."""
        ...


class LocalFile:
    """A file on a mounted disk."""

    def __init__(self, path: Path) -> None:
        """Open `path`.

        Raises:
            UnreadableFile: missing, a folder, no permission, not a plain file, or empty.
            DataError: it leads out of the folders that this process may read.
        """
        self.path = path
        self.name = str(path)
        self._fd, self.size_bytes = _open(path)
        self._closing = threading.Lock()

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """See `ByteFile.read_into`; nothing seeks."""
        fd, done = self._fd, 0
        assert fd >= 0, "the file was closed"
        while done < len(buffer):
            try:
                count = os.preadv(fd, [buffer[done:]], offset + done)
            except OSError as error:
                raise unreadable(self.path, error.strerror or str(error), _("Check the disk.")) from None
            if count == 0:
                why = _("it ends before byte {end}").format(end=offset + len(buffer))
                raise unreadable(self.path, why)
            done += count

    def close(self) -> None:
        """See `ByteFile.close`."""
        with self._closing:
            fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        if hasattr(self, "_closing"):
            self.close()


def _open(path: Path) -> tuple[int, int]:
    """A file descriptor and the file's size in bytes; see `LocalFile`."""
    try:
        fd = open_plain(path)
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


def read_bytes(file: ByteFile, offset: int, nbytes: int) -> bytes:
    """`nbytes` at `offset`.

    Raises:
        UnreadableFile: the file ends before.
    """
    if offset < 0 or nbytes < 0 or offset + nbytes > file.size_bytes:
        raise unreadable(file.name, _("it ends before byte {end}").format(end=offset + nbytes))
    buffer = bytearray(nbytes)
    file.read_into(offset, memoryview(buffer))
    return bytes(buffer)


class FileObject(io.RawIOBase):
    """A `ByteFile` as a seekable binary stream, for libraries that want one."""

    def __init__(self, file: ByteFile) -> None:
        self._file = file
        self._at = 0

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move; see `io.IOBase.seek`."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._file.size_bytes}[whence]
        self._at = max(0, start + offset)
        return self._at

    def tell(self) -> int:
        """Where the next byte comes from."""
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill as much of `buffer` as the file has; 0 at its end."""
        view = memoryview(buffer).cast("B")
        count = max(0, min(len(view), self._file.size_bytes - self._at))
        if count:
            self._file.read_into(self._at, view[:count])
            self._at += count
        return count

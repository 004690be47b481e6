"""Bytes of a file, wherever it lies: read at an offset, from any thread; one sentence when that fails."""

from __future__ import annotations

import io
import os
import threading
from pathlib import Path
from typing import Protocol

from caudal.core.messages import _
from caudal.data.readers.files import open_for_reading, read_exactly, unreadable


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
        """
        self.path = path
        self.name = str(path)
        self._fd, self.size_bytes = open_for_reading(path)
        self._closing = threading.Lock()

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """See `ByteFile.read_into`."""
        read_exactly(self._fd, self.path, offset, buffer)

    def close(self) -> None:
        """See `ByteFile.close`."""
        with self._closing:
            fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        if hasattr(self, "_closing"):
            self.close()


def read_bytes(file: ByteFile, offset: int, nbytes: int) -> bytes:
    """`nbytes` at `offset`.

    Raises:
        UnreadableFile: the file ends before.
    """
    if offset < 0 or nbytes < 0 or offset + nbytes > file.size_bytes:
        raise unreadable(Path(file.name), _("it ends before byte {end}").format(end=offset + nbytes))
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

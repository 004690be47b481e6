"""An unnamed file on the output's disk: room for what is too much to hold and does not stay.

It goes when it is closed, or with the process. Its pages belong to the page cache, which the system takes
back when memory is short. What the bytes mean is not known here.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


class Spill:
    """Bytes by their place; `read` and `write` may be called from several threads at once.

    Raises:
        OSError: from any call; without room on the disk it is `ENOSPC`.
    """

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - closed by close()

    def write(self, place: int, data: bytes | memoryview) -> None:
        """Put `data` at `place`."""
        rest = memoryview(data).cast("B")
        while len(rest):
            count = os.pwrite(self._file.fileno(), rest, place)
            rest, place = rest[count:], place + count

    def read(self, place: int, size_bytes: int) -> bytearray:
        """The bytes from `place` on; zeros where nothing was written."""
        data = bytearray(size_bytes)
        rest = memoryview(data)
        while len(rest):
            count = os.preadv(self._file.fileno(), [rest], place)
            if not count:
                break
            rest, place = rest[count:], place + count
        return data

    def close(self) -> None:
        """Give the disk space back."""
        self._file.close()

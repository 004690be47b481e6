"""Bytes of a file on a mounted disk, read past the page cache, where its filesystem can do that.

Right for what the page cache could not hold until it is wanted again: to keep it there, and to make room for
it, takes more processor time than to read it. It does not decide which files that is true of.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from caudal.core.messages import _
from caudal.data.byte_file import LocalFile
from caudal.data.unreadable import unreadable

Span = tuple[int, memoryview]  # where something lies in a file, and writable bytes for it

_ALIGNMENT_BYTES = 4096  # of places, memory and sizes; disks want 512 or this
CHUNK_BYTES = 2**20  # at a time: the disk's full rate, and the processor's cache still holds it for the copy
_GAP_BYTES = 2**14  # to read over so much is faster than a read of its own
_NO_CACHE = getattr(os, "O_DIRECT", 0)  # not every system has it


class UncachedFile(LocalFile):
    """A file of which nothing stays in the page cache. Each thread reads through memory of its own."""

    def __init__(self, path: Path) -> None:
        """See `LocalFile`."""
        super().__init__(path)
        self._leave_cache(_NO_CACHE)

    def _leave_cache(self, flag: int) -> None:
        with contextlib.suppress(OSError):  # then it is read through the cache
            kept = fcntl.fcntl(self._fd, fcntl.F_GETFL) & ~_NO_CACHE
            fcntl.fcntl(self._fd, fcntl.F_SETFL, kept | flag)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """See `ByteFile.read_into`."""
        self._read_run([(offset, buffer)])

    def read_spans(self, spans: Sequence[Span]) -> None:
        """Fill each buffer with what lies at its offset; those that lie side by side in one go.

        Raises:
            UnreadableFile: as `read_into`.
        """
        run: list[Span] = []
        end = 0
        for offset, buffer in sorted(spans, key=lambda span: span[0]):
            if run and not 0 <= offset - end <= _GAP_BYTES:
                self._read_run(run)
                run = []
            run.append((offset, buffer))
            end = offset + len(buffer)
        if run:
            self._read_run(run)

    def _read_run(self, run: list[Span]) -> None:
        """Fill buffers that follow each other in the file, without overlap."""
        at, end = run[0][0], run[-1][0] + len(run[-1][1])
        memory = _own_memory()
        while at < end:
            start = at // _ALIGNMENT_BYTES * _ALIGNMENT_BYTES
            nbytes = min(CHUNK_BYTES, -(-(end - start) // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES)
            stop = min(start + self._read_aligned(memory[:nbytes], start), end)
            if stop <= at:
                raise unreadable(self.path, _("it ends before byte {end}").format(end=end))
            for offset, buffer in run:
                first, last = max(offset, at), min(offset + len(buffer), stop)
                if first < last:  # numpy lets other threads run while it copies
                    np.copyto(
                        np.frombuffer(buffer, np.uint8)[first - offset : last - offset],
                        np.frombuffer(memory, np.uint8)[first - start : last - start],
                    )
            at = stop

    def _read_aligned(self, memory: memoryview, start: int) -> int:
        """Read what fits into `memory`; how many bytes there were."""
        assert self._fd >= 0, "the file was closed"
        try:
            return os.preadv(self._fd, [memory], start)
        except OSError as error:
            if error.errno == errno.EINVAL:  # a disk that wants other alignments
                self._leave_cache(0)
                with contextlib.suppress(OSError):
                    return os.preadv(self._fd, [memory], start)
            raise unreadable(self.path, error.strerror or str(error), _("Check the disk.")) from None


_of_thread = threading.local()


def _own_memory() -> memoryview:
    """Memory of this thread, at a multiple of a page."""
    if not hasattr(_of_thread, "memory"):
        _of_thread.memory = memoryview(mmap.mmap(-1, CHUNK_BYTES))
    memory: memoryview = _of_thread.memory
    return memory

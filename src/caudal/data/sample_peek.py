"""Some bytes and the sizes of many files on disk, by four calls of the system each and nothing else.

For an index of a million files every other step would count. It explains nothing: where it gets no answer,
`open_bytes` says why.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice

from caudal.core.confined import open_plain
from caudal.core.errors import DataError

HEAD_BYTES = 1024
Peeked = tuple[int, bytes] | None
Reads = Callable[[int], Sequence[tuple[int, int]]]
"""What to read of a file of some size: the first byte and the number of bytes, each time."""

_AT_ONCE = 64  # files that are open; a disk answers so many requests hardly later than one
# Without O_NONBLOCK a named pipe would make the caller wait for ever.
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK


def the_head(_size_bytes: int) -> Sequence[tuple[int, int]]:
    """The first bytes of any file."""
    return ((0, HEAD_BYTES),)


def peek(names: Iterable[str], reads: Reads = the_head) -> Iterator[tuple[str, Peeked]]:
    """Each name, and how many bytes that plain file has with those of them that `reads` asks for.

    `None` stands for what does not open. The disk is asked for some files before the first is waited for.
    """
    left = iter(names)
    while some := list(islice(left, _AT_ONCE)):
        descriptors = [_opened(name) for name in some]
        try:
            found = [_read(fd, reads) for fd in descriptors]
        finally:
            for fd in descriptors:
                if fd >= 0:
                    os.close(fd)
        yield from zip(some, found, strict=True)


def _opened(name: str) -> int:
    try:
        fd = open_plain(name, _FLAGS)
    except (OSError, ValueError, DataError):  # whoever opens it hears why it cannot be
        return -1
    if hasattr(os, "posix_fadvise"):
        with suppress(OSError):  # a pipe, or a file system without it
            os.posix_fadvise(fd, 0, HEAD_BYTES, os.POSIX_FADV_WILLNEED)
    return fd


def _read(fd: int, reads: Reads) -> Peeked:
    if fd < 0:
        return None
    try:
        state = os.fstat(fd)
        if not stat.S_ISREG(state.st_mode):
            return None
        size = state.st_size
        spans = reads(size)
        if len(spans) == 1:
            return size, os.pread(fd, spans[0][1], spans[0][0])
        return size, b"".join([os.pread(fd, count, first) for first, count in spans])
    except OSError:
        return None

"""What the system does with pages of mapped files: bring them in, drop them, tell which are in memory."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable
from functools import cache

import numpy as np
import numpy.typing as npt

POPULATE_READ = 22  # linux/mman.h, since Linux 5.14


@cache
def mincore() -> Callable[[int, int, object], int]:
    """The system's call: which pages of a span are in memory, a byte a page; not 0 where it cannot tell."""
    function = ctypes.CDLL(None, use_errno=True).mincore
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
    return function


@cache
def madvise() -> Callable[[int, int, int], int] | None:
    """The system's call, which does not hold Python's lock as `mmap.madvise` does.

    `None` where it is unknown, or does not know `POPULATE_READ`.
    """
    try:
        function = ctypes.CDLL(None, use_errno=True).madvise
    except (OSError, AttributeError):
        return None
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    page = mmap.mmap(-1, mmap.PAGESIZE)
    array = np.frombuffer(page, np.uint8)
    known: bool = function(array.ctypes.data, mmap.PAGESIZE, POPULATE_READ) == 0
    return function if known else None


def pages(mapped: npt.NDArray[np.uint8], begin: int, end: int) -> tuple[int, int]:
    """The address and the bytes of the whole pages that hold a span of a mapped file."""
    first = begin // mmap.PAGESIZE * mmap.PAGESIZE
    return mapped.ctypes.data + first, -(-(end - first) // mmap.PAGESIZE) * mmap.PAGESIZE

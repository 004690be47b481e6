"""Large pages for memory that is about to be filled: taking it costs the system a five-hundredth of the work.

A hint: where the system does not know it, nothing changes. What is held is the same, for only whole large
pages inside the range become large.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import Any

LARGE_BYTES = 2 * 2**20
_MADV_HUGEPAGE = 14


def want_large_pages(address: int, nbytes: int) -> None:
    """Ask for large pages where `nbytes` at `address` hold any."""
    begin = -(-address // LARGE_BYTES) * LARGE_BYTES
    end = (address + nbytes) // LARGE_BYTES * LARGE_BYTES
    advise = _madvise()
    if advise is not None and end > begin:
        advise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), _MADV_HUGEPAGE)


@lru_cache(maxsize=1)
def _madvise() -> Any:
    try:
        return ctypes.CDLL("libc.so.6").madvise
    except (OSError, AttributeError):  # not glibc
        return None

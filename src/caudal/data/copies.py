"""Files of the same content: told by size, then by both ends. What is merely alike is not found."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from caudal.data.byte_file import read_bytes
from caudal.data.locations import open_bytes
from caudal.data.url import Location

_END_BYTES = 65536


def fingerprint(path: Location, size: int) -> bytes:
    """What tells files of that size (in bytes) apart.

    Both ends of the file: enough to tell photographs apart, and 200 GB need not be read for it.
    """
    end = min(size, _END_BYTES)
    with closing(open_bytes(path)) as file:
        both = read_bytes(file, 0, end) + read_bytes(file, size - end, end)
    return hashlib.blake2b(both + str(size).encode()).digest()


def copies_between(some: Sequence[Location], others: Sequence[Location]) -> dict[int, int]:
    """Of each of `others` that has the content of one of `some`: its number, and that one's number.

    Only files on disk are compared, and read where two have the same size.

    Raises:
        UnreadableFile: a file went away, or cannot be read.
    """
    sizes = [_size(path) for path in some]
    wanted = [_size(path) for path in others]
    doubtful = set(sizes) & set(wanted) - {-1}
    first: dict[bytes, int] = {}
    for k, size in enumerate(sizes):
        if size in doubtful:
            first.setdefault(fingerprint(some[k], size), k)
    found = {}
    for k, size in enumerate(wanted):
        if size in doubtful and (twin := first.get(fingerprint(others[k], size))) is not None:
            found[k] = twin
    return found


def _size(path: Location) -> int:
    return path.stat().st_size if isinstance(path, Path) and path.is_file() else -1

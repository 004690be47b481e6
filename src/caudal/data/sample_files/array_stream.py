"""An array in NumPy's own format (NEP 1), read from a stream: its header, then its values.

Objects are never unpickled: `caudal.data.sample_files.number_types` refuses them by the header.
"""

from __future__ import annotations

import io
import math
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from caudal.core.messages import _
from caudal.data.sample_files.arrangement import bytes_of, claimed_bytes
from caudal.data.sample_files.base import Array
from caudal.data.sample_files.number_types import refuse_objects
from caudal.data.unreadable import unreadable

PIECE_BYTES = 1 << 20
_MOST_HEADER_BYTES = 10_000  # what NumPy itself accepts from a file that it does not trust
_PREFIX_BYTES = 12  # magic, version, and the header's length in two bytes or, since version 2, in four
# NumPy parses headers with `ast`, whose depth count is not safe from threads in Python 3.11 (SystemError).
_PARSING = threading.Lock()
_READ = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
    # It differs from 2 in its encoding, which matters to the names in records alone.
    (3, 0): np.lib.format.read_array_header_2_0,
}


class Stream(Protocol):
    """What values are read from."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Fill as much of `buffer` as there is; 0 at the end."""
        ...

    def seek(self, offset: int, /) -> int:
        """Go to `offset`."""
        ...


@dataclass(frozen=True, slots=True)
class ArrayHeader:
    """What stands before the values. `stored` is the dtype as written, `start` where the values begin."""

    stored: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool
    start: int
    nbytes: int

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype in native byte order."""
        return self.stored.newbyteorder("=")

    @property
    def as_in_memory(self) -> bool:
        """Whether the bytes of the values are those of the array."""
        return self.stored.isnative and not self.fortran

    @property
    def scratch_bytes(self) -> int:
        """The most that `pour` holds beside the array."""
        first = self.shape[-1] if self.fortran else self.shape[0] if self.shape else 1
        return PIECE_BYTES + max(PIECE_BYTES, self.nbytes // max(1, first))


def array_header(stream: IO[bytes], path: Path, array: str, held_bytes: int) -> ArrayHeader:
    """Read the header from the start of `stream`, which holds `held_bytes` in all.

    Raises:
        UnreadableFile: none, broken, of objects or records, or it claims more values than there are.
    """
    head = stream.read(_PREFIX_BYTES)
    version = (head[6], head[7]) if len(head) == _PREFIX_BYTES else (0, 0)
    broken = unreadable(path, _("the header of “{array}” is broken").format(array=array))
    if version not in _READ:
        raise broken
    start = 10 + int.from_bytes(head[8:10], "little") if version[0] == 1 else _PREFIX_BYTES
    start += int.from_bytes(head[8:12], "little") if version[0] > 1 else 0
    if not _PREFIX_BYTES < start <= min(held_bytes, _MOST_HEADER_BYTES + _PREFIX_BYTES):
        raise broken
    text = io.BytesIO(head + stream.read(start - _PREFIX_BYTES))
    try:
        np.lib.format.read_magic(text)
        with _PARSING:
            shape, fortran, dtype = _READ[version](text, max_header_size=_MOST_HEADER_BYTES)
    except Exception as error:  # NumPy's parser raises of every kind on what is no header
        raise broken from error
    refuse_objects(path, array, dtype)
    nbytes = claimed_bytes(path, array, shape, dtype.itemsize, held_bytes - start)
    return ArrayHeader(dtype, tuple(int(n) for n in shape), bool(fortran) and len(shape) > 1, start, nbytes)


def pour(stream: Stream, header: ArrayHeader, into: Array) -> None:
    """Fill `into`, of native byte order and C order, with values that lie as `header` says.

    Raises:
        EOFError: `stream` ends before.
    """
    if header.as_in_memory:
        fill(stream, bytes_of(into))
        return
    target = np.atleast_1d(into.T if header.fortran else into)
    if not target.size:
        return
    row = target.shape[1:]
    rows = max(1, PIECE_BYTES // max(1, math.prod(row) * header.stored.itemsize))
    piece = np.empty((min(rows, len(target)), *row), header.stored)
    for first in range(0, len(target), rows):
        part = piece[: len(target) - first]
        fill(stream, bytes_of(part))
        target[first : first + rows] = part


def fill(stream: Stream, view: memoryview) -> None:
    """Fill all of `view`.

    Raises:
        EOFError: `stream` ends before.
    """
    at = 0
    while at < len(view):
        # In pieces, as a stream that decompresses holds what it is asked for.
        count = stream.readinto(view[at : at + PIECE_BYTES])
        if not count:
            raise EOFError
        at += count

"""Which files of samples lie below a root, as packed names: they cost little more than their bytes.

No file is opened and none is asked for its size: whoever reads a header learns that with it.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from caudal.data.index import Names
from caudal.data.locations import list_files, located
from caudal.data.walk import walk

_PIECE = 4096  # names that stand as Python texts at a time


def list_names(root: str, suffixes: Collection[str]) -> Names:
    """The names that `list_files` gives for `root`, in the same order.

    Raises:
        UnreadableFile, UsageError: as `list_files`.
    """
    place = located(root)
    if not isinstance(place, Path) or not place.is_dir():
        return Names.pack(name for name, _size in list_files(root, suffixes))
    prefix = os.fsencode(str(place).rstrip(os.sep) + os.sep)
    endings = tuple(os.fsencode(suffix.lower()) for suffix in suffixes)
    below = sorted(entry.path[len(prefix) :] for entry in walk(prefix, endings))
    return _packed(prefix, below)


def texts(names: Names, first: int = 0, last: int | None = None) -> Iterator[str]:
    """The names `first` … `last` - 1 one after the other, much faster than each by its number."""
    last = len(names) if last is None else last
    for begin in range(first, last, _PIECE):
        end = min(begin + _PIECE, last)
        start = int(names.ends[begin - 1]) if begin else 0
        ends = (names.ends[begin:end] - start).tolist()
        blob, at = names.blob[start : start + ends[-1]].tobytes(), 0
        for stop in ends:
            yield blob[at:stop].decode("utf-8", "surrogateescape")
            at = stop


def ends_in(names: Names, suffixes: Collection[str]) -> npt.NDArray[np.bool_]:
    """Which names end in one of `suffixes` (ASCII, lower case), in whatever case; a million in a moment."""
    lengths = np.diff(names.ends, prepend=0)
    found = np.zeros(len(names), bool)
    for suffix in suffixes:
        same = lengths >= len(suffix)
        for back, byte in enumerate(reversed(suffix.encode("ascii")), 1):
            at = names.blob[names.ends - back]  # of a shorter name it is another's, and not asked for
            same &= np.where((at >= ord("A")) & (at <= ord("Z")), at + 32, at) == byte
        found |= same
    return found


def _packed(prefix: bytes, below: list[bytes]) -> Names:
    """`Names` of `prefix` with each, piece by piece: joined at once they would stand in memory twice more."""
    ends = np.cumsum(np.fromiter(map(len, below), np.int64, len(below)) + len(prefix))
    blob = np.empty(int(ends[-1]) if len(below) else 0, np.uint8)
    for begin in range(0, len(below), _PIECE):
        piece = b"".join(prefix + name for name in below[begin : begin + _PIECE])
        start = int(ends[begin - 1]) if begin else 0
        blob[start : start + len(piece)] = np.frombuffer(piece, np.uint8)
    return Names(blob, ends)

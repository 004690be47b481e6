"""Which bytes of a file decide what it says of itself: files that have the same there are understood once.

A reader says it of a file that it has understood; what it does not know to be free has to be equal. Nothing
is read here.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from caudal.data.byte_file import ByteFile

_WHOLE_BYTES = 8192  # a file up to this size is compared in one piece
_GAP_BYTES = 512
_MOST_READS = 12
_MOST_BYTES = 32_768

Span = tuple[int, int]
"""The first byte, and the one after the last."""


@dataclass(frozen=True)
class Likeness:
    """The bytes of `reads` (first, count) but for those where `mask` is 0, and what these have to be.

    The spans `same` hold the same bytes as each other. Of `checks` (first, last, at) the four bytes from `at`
    on are the CRC-32 of those from `first` to `last`. All count in what was read, one read after the other.
    """

    reads: tuple[Span, ...]
    mask: npt.NDArray[np.uint8]
    same: tuple[Span, ...] = ()
    checks: tuple[tuple[int, int, int], ...] = ()

    def key(self, data: bytes) -> bytes | None:
        """What decides of the bytes of `reads`; `None` where they do not hold together."""
        if len(data) != len(self.mask) or not self._holds(data):
            return None
        return (np.frombuffer(data, np.uint8) & self.mask).tobytes()

    def is_like(self, data: bytes, key: bytes) -> bool:
        """Whether the key of `data` is this one."""
        if len(data) != len(self.mask) or (np.frombuffer(data, np.uint8) & self.mask).tobytes() != key:
            return False
        return self._holds(data)

    @cached_property
    def _names(self) -> Callable[[bytes], tuple[bytes, ...]]:
        """All spans that are the same, in one call."""
        first, *others = (slice(begin, end) for begin, end in self.same)
        return itemgetter(first, first, *others)

    def _holds(self, data: bytes) -> bool:
        if self.same:
            names = set(self._names(data))
            name = names.pop()
            # As a folder may be called; of another name one would have to see what becomes of it.
            if names or not name.isascii() or b"/" in name or b"\0" in name:
                return False
        for begin, end, at in self.checks:
            if zlib.crc32(data[begin:end]) != int.from_bytes(data[at : at + 4], "little"):
                return False
        return True


@runtime_checkable
class LikenessReader(Protocol):
    """A `SampleReader` that can say which bytes of a file decide its part."""

    def likeness(self, file: ByteFile, whole: bool) -> Likeness | None:
        """Of a file whose part was read; `None` where its values decide, too, or too many bytes do.

        Raises:
            UnreadableFile: as `SampleReader.part`.
        """
        ...


def likeness_of(
    size_bytes: int, free: Sequence[Span], same: Sequence[Span], checks: Sequence[tuple[int, int, int]]
) -> Likeness | None:
    """The likeness of files of one size in which the spans `free` decide nothing; offsets are the file's."""
    reads = [(0, size_bytes)] if size_bytes <= _WHOLE_BYTES else _between(size_bytes, free)
    if len(reads) > _MOST_READS or sum(count for _first, count in reads) > _MOST_BYTES:
        return None
    mask = np.full(sum(count for _first, count in reads), 255, np.uint8)
    for span in (*free, *same):
        at = 0
        for first, count in reads:
            begin, end = max(span[0] - first, 0), min(span[1] - first, count)
            if begin < end:
                mask[at + begin : at + end] = 0
            at += count

    def within(begin: int, end: int) -> int | None:
        """Where a span lies in what is read, if all of it does."""
        at = 0
        for first, count in reads:
            if first <= begin and end <= first + count:
                return at + begin - first
            at += count
        return None

    found = [(within(begin, end), end - begin) for begin, end in same]
    alike = [(place, place + count) for place, count in found if place is not None]
    if len(alike) < len(same):
        return None
    checked = []
    for begin, end, at in checks:
        values, place = within(begin, end), within(at, at + 4)
        if values is not None and place is not None:
            checked.append((values, values + end - begin, place))
    return Likeness(tuple(reads), mask, tuple(alike), tuple(checked))


def _between(size_bytes: int, free: Sequence[Span]) -> list[Span]:
    """The reads that cover all that is not free, short gaps along with them."""
    reads: list[Span] = []
    at = 0
    for begin, end in sorted((*free, (size_bytes, size_bytes))):
        if begin > at:
            if reads and at - sum(reads[-1]) <= _GAP_BYTES:
                at = reads.pop()[0]
            reads.append((at, begin - at))
        at = max(at, end)
    return reads

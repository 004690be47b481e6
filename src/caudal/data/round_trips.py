"""Reads of a file where each costs a round trip: fewer of them, and larger.

Two views of a `ByteFile`: `Paged` for what is small and lies together, as a header does, and `Runs` for
pieces whose places are known beforehand. Neither is of use for a file on disk.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from caudal.data.byte_file import ByteFile

PAGE_BYTES = 64 * 2**10
# In the time of a round trip (20 ms and more) a store sends more than this: what lies between is read along.
_NEAR_BYTES = 256 * 2**10
# A run is held while its parts are taken. Past this the round trip is a small share of the time.
_RUN_BYTES = 4 * 2**20

Run = tuple[int, int]
"""First byte, and the one after the last."""


class Paged:
    """A `ByteFile` that reads pages of `PAGE_BYTES` and keeps them; `head` are the first bytes, if known."""

    def __init__(self, file: ByteFile, head: bytes = b"") -> None:
        self.name, self.size_bytes = file.name, file.size_bytes
        self._file = file
        self._pages = [(0, head)]

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """See `ByteFile.read_into`."""
        end = offset + len(buffer)
        if len(buffer) > PAGE_BYTES or end > self.size_bytes:
            self._file.read_into(offset, buffer)
            return
        for start, page in self._pages:
            if start <= offset and end <= start + len(page):
                break
        else:
            start = max(0, min(offset, self.size_bytes - PAGE_BYTES))
            into = bytearray(min(PAGE_BYTES, self.size_bytes))
            self._file.read_into(start, memoryview(into))
            page = bytes(into)
            self._pages.append((start, page))
        buffer[:] = page[offset - start : end - start]

    def close(self) -> None:
        """See `ByteFile.close`."""
        self._file.close()


def runs_of(pieces: Iterable[Run]) -> list[Run]:
    """What to ask for to have `pieces`, in the order of the file: those near each other together.

    A run that would become too long ends with a piece, and the next begins where it ends.
    """
    runs: list[Run] = []
    for start, end in sorted(pieces):
        first, last = runs[-1] if runs else (0, -1 - _NEAR_BYTES)
        if end <= last:
            continue
        if start > last + _NEAR_BYTES:
            runs.append((start, end))
        elif end - first > _RUN_BYTES:
            runs.append((last, end))
        else:
            runs[-1] = first, end
    return runs


def held_bytes(runs: list[Run]) -> int:
    """The most bytes that `Runs` holds of them: one, and what some libraries hold of it on its way here."""
    return 2 * max((end - start for start, end in runs), default=0)


class Runs:
    """Reads what lies in `runs`, each of which is fetched whole and held until one of another is wanted.

    For one thread: its caller's.
    """

    def __init__(self, file: ByteFile, runs: list[Run]) -> None:
        self._file, self._runs = file, runs
        self._starts = [start for start, _end in runs]
        self._held_start, self._held = -1, memoryview(b"")

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` with what lies at `offset`: in a run, in several that adjoin, or in none.

        Raises:
            UnreadableFile: see `ByteFile.read_into`.
        """
        while len(buffer):
            place = bisect_right(self._starts, offset)
            start, end = self._runs[place - 1] if place else (0, 0)
            if offset >= end:
                following = self._starts[place] if place < len(self._starts) else offset + len(buffer)
                start, end = offset, min(following, offset + len(buffer))
            part = buffer[: end - offset]
            if len(part) == end - start:  # all of it: nobody will ask for it again
                self._file.read_into(offset, part)
            else:
                self._hold(start, end)
                part[:] = self._held[offset - start : offset - start + len(part)]
            offset += len(part)
            buffer = buffer[len(part) :]

    def _hold(self, start: int, end: int) -> None:
        if start == self._held_start:
            return
        self._held_start, self._held = -1, memoryview(b"")  # one at a time
        fetched = memoryview(bytearray(end - start))
        self._file.read_into(start, fetched)
        self._held_start, self._held = start, fetched

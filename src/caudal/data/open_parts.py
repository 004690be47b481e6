"""Reads samples of a set: open files, and the bytes of a run of samples brought into given arrays."""

from __future__ import annotations

import os
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from imagecodecs import deflate_crc32

from caudal.core.confined import open_plain
from caudal.core.errors import DataError, UnreadableFile
from caudal.core.messages import _
from caudal.data.byte_file import ByteFile, read_bytes
from caudal.data.locations import is_remote, open_bytes
from caudal.data.mapped import cached_files
from caudal.data.sample_files.base import Array, Field, Ints, LoneReader, Part
from caudal.data.sample_set import SampleSet
from caudal.data.uncached_file import Span, UncachedFile
from caudal.data.unreadable import unreadable

OPEN_FILES = 64


@dataclass
class _Open:
    """`part` is `None` where bytes are fetched as they are; `users` are reading now."""

    file: ByteFile
    part: Part | None
    users: int = 0


class OpenParts:
    """Open files of a set, the least recently used closed first; reads samples. Safe from several threads."""

    def __init__(self, samples: SampleSet, most: int = OPEN_FILES) -> None:
        self._set, self._most = samples, most
        self._open: OrderedDict[int, _Open] = OrderedDict()
        self._lone = samples.reader if isinstance(samples.reader, LoneReader) else None
        self._names, self._file_bytes = samples.columns.names, samples.columns.sizes
        self._remote, self._cached = is_remote(samples.root), cached_files(samples)
        self._stored = samples.stored
        # Whether the samples of a block follow each other in the file, field by field, once that was seen.
        self._joined = bytearray(0 if samples.direct else len(samples.columns.block_ends))
        self._lock = threading.Lock()
        self.bytes_read = 0

    def read(self, first: int, last: int, into: Mapping[str, Array]) -> None:
        """Bring the samples `first` … `last` - 1 of one block into arrays of their size, one for each field.

        Raises:
            UnreadableFile: a file is broken, gone, or not the one that was indexed.
        """
        if self._lone:
            name, data = self._whole(first)  # files and samples have the same numbers
            self._lone.read_whole(name, data, into)
            count = len(data)
        else:
            number = bisect_right(self._set.columns.file_ends, first)  # numpy would let go of Python's lock
            opened = self._take(number)
            try:
                if opened.part is None:
                    count = self._fetch(opened.file, first, last, into)
                else:
                    within = self._set.where(first)[1]
                    block = int(np.searchsorted(opened.part.ends, within, "right"))
                    self._set.reader.read(opened.file, opened.part, block, into)
                    for name, table in self._set.columns.recode.items():
                        into[name][...] = table[number][into[name]]
                    count = opened.file.size_bytes // max(1, len(opened.part.ends))
            finally:
                self._give(opened)
        with self._lock:
            self.bytes_read += count

    def read_each(self, samples: Ints, into: Mapping[str, Sequence[memoryview]]) -> list[int]:
        """Bring raw samples, each a block of its own, into buffers of their size: one of each field for each.

        Hundreds of thousands a second need this in one go. Gives the places in `samples` of those that could
        not be read: whoever reads them one by one is told why.
        """
        columns = self._set.columns
        assert columns.places is not None
        numbers = np.searchsorted(columns.file_ends, samples, "right").tolist()
        starts = [columns.places[name][samples].tolist() for name in into]
        fields = list(zip(starts, into.values(), strict=True))
        failed: list[int] = []
        by_file: dict[int, list[int]] = {}
        for k, number in enumerate(numbers):
            by_file.setdefault(number, []).append(k)
        for number, these in by_file.items():
            try:
                opened = self._take(number)
            except UnreadableFile:
                failed += these
                continue
            try:
                for k in these:
                    try:
                        _fill(opened.file, [(begins[k], buffers[k]) for begins, buffers in fields])
                        if columns.checks is not None:
                            sample = int(samples[k])  # a block of its own
                            self._check_bytes(sample, sample, {name: into[name][k] for name in into})
                    except UnreadableFile:
                        failed.append(k)
            finally:
                self._give(opened)
        return failed

    def _whole(self, number: int) -> tuple[str, bytes]:
        """Name and bytes of a file that is wanted once: it is not kept open."""
        name, then = self._names[number], int(self._file_bytes[number])
        data = b"" if self._remote else _at_once(name, then)
        if len(data) == then:
            return name, data
        file = self._open_file(number)  # with care, and reasons
        try:
            return file.name, read_bytes(file, 0, then)
        finally:
            file.close()

    def _fetch(self, file: ByteFile, first: int, last: int, into: Mapping[str, Array]) -> int:
        places = self._set.columns.places
        assert places is not None
        block = self._block(first)
        known = last - first == 1 or self._joined[block]
        spans, joined = [], True
        found = _bytes_of(into)
        if self._set.overlapping and not known:
            return sum(self._fetch_once(file, one, first, last, found.get(one.name)) for one in self._stored)
        for one in self._stored:
            buffer = found.get(one.name)
            if not buffer:  # empty, or taken as it lies
                continue
            begin = int(places[one.name][first])
            if known:
                spans.append((begin, buffer))
            else:
                stretches = self._stretches(one, first, last, buffer)
                joined &= [at for at, _buffer in stretches] == [begin]
                spans += stretches
        if not known:  # found out once: a block that does not stay comes again in every epoch
            self._joined[block] = joined
        _fill(file, spans)
        if self._set.columns.checks is not None:
            self._check_bytes(first, block, found)
        return sum(len(buffer) for _offset, buffer in spans)

    def _fetch_once(self, file: ByteFile, one: Field, first: int, last: int, buffer: Any) -> int:
        """Bring samples that overlap in the file into a buffer, their bytes read once; how many these are."""
        if not buffer:
            return 0
        assert self._set.columns.places is not None
        starts = self._set.columns.places[one.name][first:last].tolist()
        sizes = self._sizes(one, first, last).tolist()
        at = count = k = 0
        while k < len(starts):
            begin, end, j = starts[k], starts[k] + sizes[k], k + 1
            while j < len(starts) and begin <= starts[j] <= end:
                end = max(end, starts[j] + sizes[j])
                j += 1
            stretch = memoryview(read_bytes(file, begin, end - begin) if end > begin else b"")
            for start, size in zip(starts[k:j], sizes[k:j], strict=True):
                buffer[at : at + size] = stretch[start - begin : start - begin + size]
                at += size
            count, k = count + end - begin, j
        return count

    def _stretches(self, one: Field, first: int, last: int, buffer: memoryview) -> list[Span]:
        """A span for each stretch of samples that lies in the file as it does in memory."""
        assert self._set.columns.places is not None
        starts, sizes = self._set.columns.places[one.name][first:last], self._sizes(one, first, last)
        cuts = [0, *(np.flatnonzero(starts[:-1] + sizes[:-1] != starts[1:]) + 1).tolist(), last - first]
        spans, at = [], 0
        for i, j in pairwise(cuts):
            nbytes = int(sizes[i:j].sum())
            if nbytes:
                spans.append((int(starts[i]), buffer[at : at + nbytes]))
            at += nbytes
        return spans

    def check(self, first: int, last: int, into: Mapping[str, Array]) -> None:
        """Compare what was read, of one block, with the checks that were written with it.

        Raises:
            UnreadableFile: they differ.
        """
        if self._set.columns.checks is not None:
            block = self._block(first)
            assert last == self._set.columns.block_ends[block]
            self._check_bytes(first, block, _bytes_of(into))

    def _check_bytes(self, first: int, block: int, into: Mapping[str, memoryview]) -> None:
        """See `check`, for the block of that number, which begins with the sample `first`."""
        columns = self._set.columns
        assert columns.checks is not None
        for one, check in zip(self._stored, columns.checks[block].tolist(), strict=True):
            if one.name not in into:
                continue
            bytes_found: Any = into[one.name]
            if deflate_crc32(bytes_found, 0) != check:
                number, _within = self._set.where(first)
                raise unreadable(
                    Path(columns.names[number]),
                    _("“{field}” of sample {sample} is not what was written (checksum)").format(
                        field=one.name, sample=first
                    ),
                    _("Pack the data again, or copy the pack anew."),
                )

    def _block(self, sample: int) -> int:
        """The block of a sample; unlike numpy it keeps Python's lock, for which two threads would wait."""
        return bisect_right(self._set.columns.block_ends, sample)

    def _sizes(self, one: Field, first: int, last: int) -> Ints:
        if not one.ragged:
            return np.full(last - first, one.row_bytes, np.int64)
        return self._set.rows(one.name, np.arange(first, last)) * one.row_bytes

    def _take(self, number: int) -> _Open:
        with self._lock:
            known = self._open.get(number)
            if known is not None:
                known.users += 1
                self._open.move_to_end(number)
                return known
        opened = self._open_part(number)
        with self._lock:
            known = self._open.setdefault(number, opened)  # another thread may have been faster
            known.users += 1
        if known is not opened:
            opened.file.close()
        return known

    def _open_part(self, number: int) -> _Open:
        file = self._open_file(number)
        try:
            return _Open(file, None if self._set.raw else self._set.reader.part(file, self._set.whole))
        except BaseException:
            file.close()
            raise

    def _open_file(self, number: int) -> ByteFile:
        name, then = self._names[number], int(self._file_bytes[number])
        file = open_bytes(name) if number < self._cached else UncachedFile(Path(name))
        if file.size_bytes == then:
            return file
        file.close()
        raise unreadable(
            Path(name),
            _("it has {now} bytes, and had {then} when it was indexed").format(
                now=file.size_bytes, then=then
            ),
            _("Leave the files alone while they are read, and start anew."),
        )

    def _give(self, one: _Open) -> None:
        with self._lock:
            one.users -= 1
            if len(self._open) <= self._most:
                return
            idle = [number for number, opened in self._open.items() if not opened.users]
            old = [self._open.pop(number) for number in idle[: len(self._open) - self._most]]
        for each in old:
            each.file.close()

    def forget(self, sample: int) -> None:
        """Let the next read of that sample open its file anew."""
        number, _within = self._set.where(sample)
        with self._lock:
            opened = self._open.get(number)
            if opened is not None and not opened.users:
                del self._open[number]
        if opened is not None and not opened.users:
            opened.file.close()

    def close(self) -> None:
        """Close every file."""
        with self._lock:
            opened, self._open = list(self._open.values()), OrderedDict()
        for one in opened:
            one.file.close()


def _bytes_of(arrays: Mapping[str, Array]) -> dict[str, Any]:
    return {name: array.reshape(-1).view(np.uint8).data for name, array in arrays.items()}


def _fill(file: ByteFile, spans: Sequence[Span]) -> None:
    """Fill each buffer with what lies at its offset."""
    if isinstance(file, UncachedFile):
        file.read_spans(spans)
        return
    for offset, buffer in spans:
        file.read_into(offset, buffer)


def _at_once(name: str, nbytes: int) -> bytes:
    """The bytes of a file on disk; of another number than `nbytes` where they cannot be had so simply."""
    try:
        fd = open_plain(name)
    except (OSError, ValueError, DataError):
        return b""
    try:
        return os.pread(fd, nbytes + 1, 0)
    except OSError:
        return b""
    finally:
        os.close(fd)

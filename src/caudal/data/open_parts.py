"""Reads samples of a set: open files, and the bytes of a run of samples brought into given arrays."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from imagecodecs import deflate_crc32

from caudal.core.errors import UnreadableFile
from caudal.core.messages import _
from caudal.data.byte_file import ByteFile, read_bytes
from caudal.data.index import Names
from caudal.data.locations import is_remote, open_bytes
from caudal.data.sample_files.base import Array, Field, Ints, LoneReader, Part
from caudal.data.sample_set import SampleSet
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
        # An array of a file that is mapped takes many times as long to look into as its view.
        names, sizes = samples.columns.names, samples.columns.sizes
        self._names = Names(names.blob.view(np.ndarray), names.ends.view(np.ndarray))
        self._file_bytes = sizes.view(np.ndarray)
        self._remote = is_remote(samples.root)
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
            number, within = self._set.where(first)
            opened = self._take(number)
            try:
                if opened.part is None:
                    count = self._fetch(opened.file, first, last, into)
                else:
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
                        for begins, buffers in fields:
                            opened.file.read_into(begins[k], buffers[k])
                        if columns.checks is not None:
                            self._check_bytes(int(samples[k]), {name: into[name][k] for name in into})
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
        count = 0
        for one in self._set.stored:
            target = into.get(one.name)  # others were taken as they lie
            if target is None or not target.nbytes:
                continue
            view = target.reshape(-1).view(np.uint8).data
            starts = places[one.name][first:last]
            sizes = self._sizes(one, first, last)
            joined = starts[:-1] + sizes[:-1] == starts[1:]
            # One read for each stretch that lies in the file as it does in memory.
            cuts = [0, *(np.flatnonzero(~joined) + 1).tolist(), last - first]
            at = 0
            for i, j in pairwise(cuts):
                nbytes = int(sizes[i:j].sum())
                if nbytes:
                    file.read_into(int(starts[i]), view[at : at + nbytes])
                at += nbytes
            count += at
        self.check(first, last, into)
        return count

    def check(self, first: int, last: int, into: Mapping[str, Array]) -> None:
        """Compare what was read, of one block, with the checks that were written with it.

        Raises:
            UnreadableFile: they differ.
        """
        if self._set.columns.checks is None:
            return
        block = int(np.searchsorted(self._set.columns.block_ends, first, "right"))
        assert (first, last) == (self._set.block_begin(block), int(self._set.columns.block_ends[block]))
        found: dict[str, Any] = {name: array.reshape(-1).view(np.uint8).data for name, array in into.items()}
        self._check_bytes(first, found)

    def _check_bytes(self, first: int, into: Mapping[str, memoryview]) -> None:
        """See `check`, for the block that begins with the sample `first`."""
        columns = self._set.columns
        assert columns.checks is not None
        block = int(np.searchsorted(columns.block_ends, first, "right"))
        for one, check in zip(self._set.stored, columns.checks[block].tolist(), strict=True):
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
        file = open_bytes(name)
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


def _at_once(name: str, nbytes: int) -> bytes:
    """The bytes of a file on disk; of another number than `nbytes` where they cannot be had so simply."""
    try:
        # Without O_NONBLOCK a named pipe would make the caller wait for ever.
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError):
        return b""
    try:
        return os.pread(fd, nbytes + 1, 0)
    except OSError:
        return b""
    finally:
        os.close(fd)

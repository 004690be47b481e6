"""Large raw samples handed out as they lie in the page cache, without a copy.

Threads bring the pages in before the consumer touches them, by `madvise(MADV_POPULATE_READ)`, which reports
what cannot be read as an error where touching it would end the process. Where the system does not know that
call, or files are not local, samples are copied instead (see `sample_stream`).

Files stay mapped: a sample that comes again, and whose pages are still there, costs nothing at all. What the
consumer changed in place is a private copy of a page; `clean` finds such copies and drops them.

Of a set that is larger than memory only so many files as memory can hold are left to the page cache: what
has to make room for the next before it is wanted again is better read past it (see `uncached_file`).
"""

from __future__ import annotations

import ctypes
import errno
import math
import mmap
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from caudal.core.confined import open_plain
from caudal.core.messages import _
from caudal.data.locations import is_remote, open_bytes
from caudal.data.sample_files.base import Array, Field
from caudal.data.sample_set import SampleSet
from caudal.data.unreadable import unreadable
from caudal.memory.limits import available_ram

WORTH_BYTES = 256 * 2**10  # below, a copy is as cheap as changing the page tables
_POPULATE_READ = 22  # linux/mman.h, since Linux 5.14
_MOST_FILES = 4096
_MOST_BYTES = 4 * 2**30  # their page tables take 8 MiB
_CACHE_SHARE = 0.5  # of the memory that is free; the rest is for what processes have yet to take
_LOOKS = 8  # pages of a sample that are looked at, to see whether the system has taken it back
# Of an entry of /proc/PID/pagemap (Documentation/admin-guide/mm/pagemap.rst).
_PRESENT, _SWAPPED, _OF_FILE = np.uint64(1 << 63), np.uint64(1 << 62), np.uint64(1 << 61)


@cache
def _mincore() -> Callable[[int, int, object], int]:
    function = ctypes.CDLL(None, use_errno=True).mincore
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
    return function


@cache
def _madvise() -> Callable[[int, int, int], int] | None:
    """The system's call, which does not hold Python's lock as `mmap.madvise` does; `None` if unknown."""
    try:
        function = ctypes.CDLL(None, use_errno=True).madvise
    except (OSError, AttributeError):
        return None
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    page = mmap.mmap(-1, mmap.PAGESIZE)
    array = np.frombuffer(page, np.uint8)
    known: bool = function(array.ctypes.data, mmap.PAGESIZE, _POPULATE_READ) == 0
    return function if known else None


def pays(samples: SampleSet) -> bool:
    """Whether the samples of a set can be handed out as they lie, and are large enough.

    Those that overlap cannot: what is changed in one would be changed in another.
    """
    columns = samples.columns
    if columns.places is None or samples.overlapping or not samples.direct or _madvise() is None:
        return False
    ragged = [one for one in samples.stored if one.ragged]
    aligned = all((columns.places[one.name] % one.dtype.itemsize == 0).all() for one in ragged)
    large = samples.total_bytes >= WORTH_BYTES * len(samples)
    return bool(ragged) and aligned and large and not is_remote(columns.names[0])


def cached_files(samples: SampleSet) -> int:
    """How many files of a set, from the first on, are left to the page cache: all, if it can hold them.

    Files of small samples, and what is not read as it lies, always are: there the cache reads ahead.
    """
    sizes = samples.columns.sizes
    large = samples.raw and samples.direct and samples.total_bytes >= WORTH_BYTES * len(samples)
    if not large or is_remote(samples.root):
        return len(sizes)
    try:
        room = _CACHE_SHARE * available_ram()
    except RuntimeError:  # nobody knows
        return len(sizes)
    return int(np.searchsorted(np.cumsum(sizes), room, "right"))


@dataclass
class _Map:
    """A mapped file, and where in it the samples begin that were brought in, and that a consumer has."""

    bytes: npt.NDArray[np.uint8]
    brought: set[int] = field(default_factory=set)
    lent: set[int] = field(default_factory=set)


class MappedFiles:
    """Files of a set in the address space, the least recently used let go first. Safe from threads."""

    def __init__(self, samples: SampleSet) -> None:
        self._set, self._cached = samples, cached_files(samples)
        self._maps: OrderedDict[int, _Map] = OrderedDict()
        self._held_bytes = 0
        self._lock = threading.Lock()
        try:
            self._pagemap = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._pagemap = -1

    def sample(self, one: Field, number: int) -> Array | None:
        """The rows of a ragged field, as they lie in the file; all of it is in memory now.

        It is lent until it is `clean`ed, and `None` meanwhile: batches must not share what may be changed.
        `None`, too, where the page cache is not to hold it.

        Raises:
            UnreadableFile: the file is gone, shorter than it was, or the disk fails.
        """
        file, begin, end = self._span(one, number)
        if file >= self._cached:
            return None
        mapped = self._map(file)
        if end > len(mapped.bytes):
            raise unreadable(
                Path(self._set.columns.names[file]), _("it ends before byte {end}").format(end=end)
            )
        with self._lock:
            if begin in mapped.lent:
                return None
            mapped.lent.add(begin)
        if end > begin and not (begin in mapped.brought and _resident(mapped.bytes, begin, end)):
            self._bring(file, mapped.bytes, begin, end)
            mapped.brought.add(begin)
        shape = self._set.shape(one, number, number + 1)
        return mapped.bytes[begin:end].view(one.dtype).reshape(shape)

    def clean(self, one: Field, number: int) -> None:
        """Take a sample back, and drop what was changed in it: the next consumer sees the file."""
        file, begin, end = self._span(one, number)
        with self._lock:
            mapped = self._maps.get(file)
        if mapped is None:
            return
        if end > begin and self._changed(mapped.bytes, begin, end):
            call = _madvise()
            assert call is not None
            address, nbytes = _pages(mapped.bytes, begin, end)
            mapped.brought.discard(begin)
            call(address, nbytes, mmap.MADV_DONTNEED)
        with self._lock:
            mapped.lent.discard(begin)

    def _changed(self, mapped: npt.NDArray[np.uint8], begin: int, end: int) -> bool:
        """Whether a page is a private copy; true where that cannot be seen."""
        if self._pagemap < 0:
            return True
        address, nbytes = _pages(mapped, begin, end)
        count = nbytes // mmap.PAGESIZE
        entries = np.frombuffer(os.pread(self._pagemap, 8 * count, address // mmap.PAGESIZE * 8), np.uint64)
        private = ((entries & _PRESENT) != 0) & ((entries & _OF_FILE) == 0)
        return len(entries) < count or bool((private | ((entries & _SWAPPED) != 0)).any())

    def _span(self, one: Field, number: int) -> tuple[int, int, int]:
        """The file of a sample, and where its rows of a field begin and end there."""
        file, _within = self._set.where(number)
        places = self._set.columns.places
        assert places is not None
        begin, shape = int(places[one.name][number]), self._set.shape(one, number, number + 1)
        return file, begin, begin + math.prod(shape) * one.dtype.itemsize

    def _bring(self, file: int, mapped: npt.NDArray[np.uint8], begin: int, end: int) -> None:
        call = _madvise()
        assert call is not None
        address, nbytes = _pages(mapped, begin, end)
        call(address, nbytes, mmap.MADV_WILLNEED)
        while call(address, nbytes, _POPULATE_READ):
            code = ctypes.get_errno()
            if code not in (errno.EINTR, errno.EAGAIN):
                raise unreadable(Path(self._set.columns.names[file]), os.strerror(code), _("Check the disk."))

    def _map(self, number: int) -> _Map:
        with self._lock:
            known = self._maps.get(number)
            if known is not None:
                self._maps.move_to_end(number)
                return known
        name, size = self._set.columns.names[number], int(self._set.columns.sizes[number])
        file = open_bytes(name)
        try:
            if file.size_bytes != size:
                raise unreadable(
                    Path(name),
                    _("its size has changed since it was indexed"),
                    _("Leave the files alone while they are read, and start anew."),
                )
        finally:
            file.close()
        with os.fdopen(open_plain(name), "rb") as handle:
            # Copy on write: a consumer may change a sample in place and never touches the file.
            whole = _Map(np.frombuffer(mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_COPY), np.uint8))
        with self._lock:
            known = self._maps.setdefault(number, whole)  # another thread may have been faster
            self._held_bytes += size if known is whole else 0
            while len(self._maps) > 1 and (len(self._maps) > _MOST_FILES or self._held_bytes > _MOST_BYTES):
                old, _gone = self._maps.popitem(last=False)
                self._held_bytes -= int(self._set.columns.sizes[old])
            return known

    def close(self) -> None:
        """Let go of all files; each goes when the last view of it does."""
        with self._lock:
            self._maps.clear()
            if self._pagemap >= 0:
                os.close(self._pagemap)
                self._pagemap = -1


def _pages(mapped: npt.NDArray[np.uint8], begin: int, end: int) -> tuple[int, int]:
    """The address and the bytes of the whole pages that hold a span."""
    first = begin // mmap.PAGESIZE * mmap.PAGESIZE
    return mapped.ctypes.data + first, -(-(end - first) // mmap.PAGESIZE) * mmap.PAGESIZE


def _resident(mapped: npt.NDArray[np.uint8], begin: int, end: int) -> bool:
    """Whether the pages of a span are still in memory, judged by a few: the system takes many at a time."""
    address, nbytes = _pages(mapped, begin, end)
    there = ctypes.create_string_buffer(1)
    for k in range(_LOOKS):
        page = (nbytes - 1) * k // (_LOOKS - 1) // mmap.PAGESIZE
        if _mincore()(address + page * mmap.PAGESIZE, mmap.PAGESIZE, there) or not there.raw[0] & 1:
            return False
    return True

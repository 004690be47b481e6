"""Large raw samples handed out as they lie in the page cache, without a copy.

Threads bring the pages in before the consumer touches them, by `madvise(MADV_POPULATE_READ)`, which reports
what cannot be read as an error where touching it would end the process. Where the system does not know that
call, or files are not local, samples are copied instead (see `sample_stream`).
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from caudal.core.messages import _
from caudal.data.locations import is_remote, open_bytes
from caudal.data.readers.files import unreadable
from caudal.data.sample_files.base import Array, Field
from caudal.data.sample_set import SampleSet

WORTH_BYTES = 256 * 2**10  # below, a copy is as cheap as changing the page tables
_POPULATE_READ = 22  # linux/mman.h, since Linux 5.14
_OPEN_FILES = 256


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
    """Whether the samples of a set can be handed out as they lie, and are large enough."""
    columns = samples.columns
    if columns.places is None or not samples.direct or _madvise() is None:
        return False
    ragged = [one for one in samples.stored if one.ragged]
    aligned = all((columns.places[one.name] % one.dtype.itemsize == 0).all() for one in ragged)
    large = samples.total_bytes >= WORTH_BYTES * len(samples)
    return bool(ragged) and aligned and large and not is_remote(columns.names[0])


class MappedFiles:
    """Files of a set in the address space, the least recently used let go first. Safe from threads."""

    def __init__(self, samples: SampleSet) -> None:
        self._set = samples
        self._maps: OrderedDict[int, npt.NDArray[np.uint8]] = OrderedDict()
        self._lock = threading.Lock()

    def sample(self, one: Field, number: int) -> Array:
        """The rows of a ragged field, as they lie in the file; all of it is in memory now.

        Raises:
            UnreadableFile: the file is gone, shorter than it was, or the disk fails.
        """
        file, _within = self._set.where(number)
        places = self._set.columns.places
        assert places is not None
        begin, shape = int(places[one.name][number]), self._set.shape(one, number, number + 1)
        end = begin + int(np.prod(shape, dtype=np.int64)) * one.dtype.itemsize
        mapped = self._map(file)
        if end > len(mapped):
            raise unreadable(
                Path(self._set.columns.names[file]), _("it ends before byte {end}").format(end=end)
            )
        if end > begin:
            self._bring(file, mapped, begin, end)
        return mapped[begin:end].view(one.dtype).reshape(shape)

    def _bring(self, file: int, mapped: npt.NDArray[np.uint8], begin: int, end: int) -> None:
        call = _madvise()
        assert call is not None
        first = begin // mmap.PAGESIZE * mmap.PAGESIZE
        address = mapped.ctypes.data + first
        call(address, end - first, mmap.MADV_WILLNEED)
        while call(address, end - first, _POPULATE_READ):
            code = ctypes.get_errno()
            if code not in (errno.EINTR, errno.EAGAIN):
                raise unreadable(Path(self._set.columns.names[file]), os.strerror(code), _("Check the disk."))

    def _map(self, number: int) -> npt.NDArray[np.uint8]:
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
        with Path(name).open("rb") as handle:
            # Copy on write: a consumer may change a sample in place and never touches the file.
            whole = np.frombuffer(mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_COPY), np.uint8)
        with self._lock:
            self._maps.setdefault(number, whole)
            while len(self._maps) > _OPEN_FILES:
                self._maps.popitem(last=False)
            return whole

    def close(self) -> None:
        """Let go of all files; each goes when the last view of it does."""
        with self._lock:
            self._maps.clear()

"""The one region where sample bytes live.

Counting bytes does not enforce a budget: an allocator keeps what it is given back. One region of fixed
size, mapped once and handed out in leases, does. A lease waits until there is room; a lease larger than
the whole region can never be granted and is refused at once, so nobody waits for ever on itself.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import threading
from typing import Any

import numpy as np
import numpy.typing as npt

from caudal.core.units import Bytes

ALIGNMENT_BYTES = 64  # a cache line, and what vector loads like


class ArenaClosed(Exception):
    """The arena was closed while somebody waited for a lease."""


class ArenaLease:
    """A piece of the arena; its views must not be used after `release`."""

    def __init__(self, arena: Arena, offset: int, size: int, nbytes: int) -> None:
        self._arena = arena
        self._offset = offset
        self._size = size
        self.nbytes = nbytes

    def array(self, shape: tuple[int, ...], dtype: np.dtype[Any] | type) -> npt.NDArray[Any]:
        """A view of the lease's first bytes as an array of `shape` and `dtype`."""
        dtype = np.dtype(dtype)
        count = int(np.prod(shape))
        assert count * dtype.itemsize <= self.nbytes, "the view is larger than its lease"
        flat = np.frombuffer(self._arena._memory, dtype, count, self._offset)
        return flat.reshape(shape)

    def release(self) -> None:
        """Hand the piece back."""
        self._arena._give_back(self._offset, self._size)


class Arena:
    """A region of `capacity` bytes, handed out first-fit. Safe to use from several threads."""

    def __init__(self, capacity: int, shared: bool = False) -> None:
        """Map `capacity` bytes; `shared` with whoever is given `fd`, for as long as the arena lives."""
        self.capacity = Bytes(max(capacity, mmap.PAGESIZE))
        self.fd = os.memfd_create("caudal-arena") if shared else None
        if self.fd is None:
            self._memory = mmap.mmap(-1, self.capacity, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        else:
            os.ftruncate(self.fd, self.capacity)
            self._memory = mmap.mmap(self.fd, self.capacity)
        with contextlib.suppress(OSError, AttributeError):
            self._memory.madvise(mmap.MADV_HUGEPAGE)  # measured: filling it is a fifth faster
        self._free: list[tuple[int, int]] = [(0, int(self.capacity))]  # (offset, size), by offset
        self._leased = 0
        self._peak = 0
        self._closed = False
        self._changed = threading.Condition()

    @property
    def address(self) -> int:
        """Where it begins in this process."""
        return int(np.frombuffer(self._memory, np.uint8).ctypes.data)

    @property
    def leased(self) -> Bytes:
        """Bytes handed out now."""
        return Bytes(self._leased)

    @property
    def peak(self) -> Bytes:
        """The most bytes that were handed out at once."""
        return Bytes(self._peak)

    @staticmethod
    def size_of(nbytes: int) -> int:
        """What a lease of `nbytes` really takes."""
        return -(-max(1, nbytes) // ALIGNMENT_BYTES) * ALIGNMENT_BYTES

    def lease(self, nbytes: int) -> ArenaLease:
        """A piece of `nbytes`, waiting until there is room.

        Raises:
            ArenaClosed: the arena was closed meanwhile.
        """
        size = self.size_of(nbytes)
        assert size <= self.capacity, f"a lease of {size} bytes can never fit into {self.capacity}"
        with self._changed:
            while True:
                if self._closed:
                    raise ArenaClosed
                offset = self._take(size)
                if offset is not None:
                    return ArenaLease(self, offset, size, nbytes)
                self._changed.wait()

    def _take(self, size: int) -> int | None:
        for index, (offset, room) in enumerate(self._free):
            if room >= size:
                self._free[index : index + 1] = [(offset + size, room - size)] if room > size else []
                self._leased += size
                self._peak = max(self._peak, self._leased)
                return offset
        return None

    def _give_back(self, offset: int, size: int) -> None:
        with self._changed:
            index = next((i for i, piece in enumerate(self._free) if piece[0] > offset), len(self._free))
            self._free.insert(index, (offset, size))
            self._merge(index)
            self._merge(index - 1)
            self._leased -= size
            self._changed.notify_all()

    def _merge(self, index: int) -> None:
        if 0 <= index < len(self._free) - 1:
            (offset, size), (after, more) = self._free[index : index + 2]
            if offset + size == after:
                self._free[index : index + 2] = [(offset, size + more)]

    def close(self) -> None:
        """Wake everyone who waits, with `ArenaClosed`. The bytes go when the last view does."""
        with self._changed:
            self._closed = True
            if self.fd is not None:
                os.close(self.fd)
                self.fd = None
            self._changed.notify_all()


class Slots:
    """The numbers of `count` equal pieces of a lease, taken and given back: nothing to fragment."""

    def __init__(self, arena: Arena, count: int) -> None:
        self._arena = arena
        self._free = list(range(count - 1, -1, -1))
        self._changed = threading.Condition()

    def take(self, count: int) -> list[int]:
        """`count` numbers, waiting until as many are free.

        Raises:
            ArenaClosed: `close` was called meanwhile.
        """
        with self._changed:
            while len(self._free) < count:
                if self._arena._closed:
                    raise ArenaClosed
                self._changed.wait()
            if self._arena._closed:
                raise ArenaClosed
            taken, self._free[-count:] = self._free[-count:], []
            return taken

    def give(self, numbers: list[int]) -> None:
        """Hand numbers back."""
        with self._changed:
            self._free.extend(numbers)
            self._changed.notify_all()

    def close(self) -> None:
        """Close the arena, and wake everyone who waits for a number, with `ArenaClosed`."""
        self._arena.close()
        with self._changed:
            self._changed.notify_all()

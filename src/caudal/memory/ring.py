"""A ring of bytes: leases of any size, handed out and given back in one order. Nothing fragments.

For batches of ragged samples, which differ in size but come and go in turn. Not for pieces that live
longer than those taken after them: see `arena.Slots`.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt

from caudal.memory.arena import ALIGNMENT_BYTES, Arena


class RingLease:
    """A contiguous piece of a ring."""

    def __init__(self, memory: npt.NDArray[np.uint8], start: int, nbytes: int) -> None:
        self._memory, self.start, self.nbytes = memory, start, nbytes

    def array(self, shape: tuple[int, ...], dtype: np.dtype[Any], offset: int = 0) -> npt.NDArray[Any]:
        """A view of the bytes from `offset` on, which must be a multiple of the dtype's size."""
        nbytes = math.prod(shape) * dtype.itemsize
        assert offset + nbytes <= self.nbytes, "the view is larger than its lease"
        if not nbytes:
            return np.empty(shape, dtype)
        begin = self.start + offset
        # A buffer of its own, so that what is cut from the array refers to it and not to the whole ring.
        return np.frombuffer(self._memory.data[begin : begin + nbytes], dtype).reshape(shape)

    def fill(self, value: int) -> None:
        """Overwrite all of it."""
        self._memory[self.start : self.start + self.nbytes] = value


class Ring:
    """`capacity` bytes of an arena. Not safe from several threads: its owner holds a lock of its own.

    A lease that does not fit behind the last one starts anew at 0, and the rest of the ring lies idle
    until the lease before it is given back. So a ring three times as large as its largest lease always has
    room for one more beside one in use, and an empty one for any.
    """

    def __init__(self, arena: Arena, capacity: int) -> None:
        self.capacity = capacity // ALIGNMENT_BYTES * ALIGNMENT_BYTES
        self._memory = arena.lease(self.capacity).array((self.capacity,), np.dtype(np.uint8))
        self._leases: deque[RingLease] = deque()
        self.leased_bytes = 0
        self.peak_bytes = 0

    def lease(self, nbytes: int) -> RingLease | None:
        """A piece of `nbytes`, or `None` while there is no room; never waits."""
        size = Arena.size_of(nbytes)
        assert size <= self.capacity, f"a lease of {size} bytes can never fit into {self.capacity}"
        start = self._place(size)
        if start is None:
            return None
        lease = RingLease(self._memory, start, size)
        self._leases.append(lease)
        self.leased_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.leased_bytes)
        return lease

    def _place(self, size: int) -> int | None:
        if not self._leases:
            return 0
        tail, head = self._leases[0].start, self._leases[-1].start + self._leases[-1].nbytes
        if self._leases[-1].start >= tail:  # not wrapped: free behind the head, and before the tail
            if head + size <= self.capacity:
                return head
            return 0 if size <= tail else None
        return head if head + size <= tail else None

    def give_back(self) -> None:
        """Give the oldest lease back."""
        self.leased_bytes -= self._leases.popleft().nbytes

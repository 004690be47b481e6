"""The ring hands out what is free, never twice, and always has room when it is empty."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from caudal.memory.arena import Arena
from caudal.memory.ring import Ring

MOST = 4096


@given(st.lists(st.tuples(st.booleans(), st.integers(1, MOST)), max_size=60))
def test_leases_never_overlap_and_an_empty_ring_takes_any(moves: list[tuple[bool, int]]) -> None:
    ring = Ring(Arena(1 << 16), MOST)
    held = []
    for give, size in moves:
        if give and held:
            ring.give_back()
            held.pop(0)
        lease = ring.lease(size)
        assert lease is not None or held
        if lease is not None:
            assert lease.start + lease.nbytes <= ring.capacity
            for other in held:
                apart = lease.start + lease.nbytes <= other.start or other.start + other.nbytes <= lease.start
                assert apart
            held.append(lease)
        assert ring.leased_bytes == sum(one.nbytes for one in held) <= ring.capacity


@given(st.integers(1, MOST // 3 // 64 * 64), st.integers(1, MOST // 3 // 64 * 64))
def test_three_times_the_largest_always_has_room_beside_one_in_use(used: int, wanted: int) -> None:
    ring = Ring(Arena(1 << 16), MOST)
    for _ in range(20):
        assert ring.lease(used) is not None
        assert ring.lease(wanted) is not None
        ring.give_back()
        assert ring.lease(used) is not None
        ring.give_back()
        ring.give_back()


def test_arrays_are_views_of_the_lease() -> None:
    ring = Ring(Arena(1 << 16), MOST)
    lease = ring.lease(256)
    assert lease is not None
    array = lease.array((4, 2), np.dtype(np.int32), 64)
    array[:] = np.arange(8).reshape(4, 2)
    assert (lease.array((8,), np.dtype(np.int32), 64) == np.arange(8)).all()

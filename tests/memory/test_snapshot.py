"""A snapshot says who holds what, and how much nobody has named."""

from __future__ import annotations

import mmap

from caudal.core.units import Bytes
from caudal.memory import snapshot
from caudal.memory.budget import Budget

MIB = 2**20


def test_what_no_holder_has_is_unexplained() -> None:
    budget = Budget(Bytes(256 * MIB))
    held = [budget.lease("arena", 64 * MIB), budget.lease("weights", 80 * MIB)]
    before = snapshot.take(budget.holders())
    region = mmap.mmap(-1, 64 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for offset in range(0, len(region), mmap.PAGESIZE):
        region[offset] = 1
    after = snapshot.take(budget.holders())
    assert list(after.holders.items()) == [("weights", 80 * MIB), ("arena", 64 * MIB)]
    assert after.unexplained == after.charged - 144 * MIB
    assert 60 * MIB < after.unexplained - before.unexplained < 70 * MIB
    for lease in held:
        lease.release()
    assert snapshot.take(budget.holders()).unexplained == snapshot.take({}).charged


def test_the_room_and_the_watcher_beside_are_counted() -> None:
    alone, watched = snapshot.take({}), snapshot.take({}, beside=32 * MIB)
    assert abs(watched.charged - alone.charged - 32 * MIB) < MIB
    assert alone.room is not None
    assert alone.room > 0

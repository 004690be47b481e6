import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from caudal.core.errors import DoesNotFit
from caudal.core.units import Bytes
from caudal.memory.arena import Arena, ArenaClosed, Slots
from caudal.memory.budget import Budget

CAPACITY = 1 << 16


class ArenaMachine(RuleBasedStateMachine):
    """Leases of any size, in any order: they never overlap and never pass the capacity."""

    def __init__(self) -> None:
        super().__init__()
        self.arena = Arena(CAPACITY)
        self.held: list[tuple[object, np.ndarray, int]] = []
        self.stamp = 0

    @rule(size=st.integers(1, 9000))
    def take(self, size: int) -> None:
        largest = max((room for _offset, room in self.arena._free), default=0)
        if Arena.size_of(size) > largest:
            return
        lease = self.arena.lease(size)
        self.stamp = (self.stamp + 1) % 251
        view = lease.array((size,), np.uint8)
        view[:] = self.stamp
        self.held.append((lease, view, self.stamp))

    @rule(which=st.integers(0, 100))
    def give(self, which: int) -> None:
        if self.held:
            lease, view, stamp = self.held.pop(which % len(self.held))
            assert (view == stamp).all()
            lease.release()  # type: ignore[attr-defined]

    @invariant()
    def nothing_is_lost_and_nothing_overlaps(self) -> None:
        free = sum(room for _offset, room in self.arena._free)
        assert free + self.arena.leased == self.arena.capacity
        assert self.arena.leased <= self.arena.peak <= self.arena.capacity
        assert all((view == stamp).all() for _lease, view, stamp in self.held)


TestArena = ArenaMachine.TestCase
TestArena.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)


def test_a_lease_waits_until_there_is_room() -> None:
    arena = Arena(1 << 12)
    first = arena.lease(4000)
    taken = threading.Event()

    def take() -> None:
        arena.lease(4000)
        taken.set()

    thread = threading.Thread(target=take)
    thread.start()
    assert not taken.is_set()
    first.release()
    assert taken.wait(5)
    thread.join()


def test_closing_wakes_whoever_waits() -> None:
    arena = Arena(1 << 12)
    slots = Slots(arena, 2)
    slots.take(2)
    ended = []

    def take() -> None:
        with pytest.raises(ArenaClosed):
            slots.take(1)
        ended.append(True)

    thread = threading.Thread(target=take)
    thread.start()
    slots.close()
    thread.join(5)
    assert ended == [True]


def test_a_lease_that_could_never_be_granted_is_a_mistake_at_once() -> None:
    with pytest.raises(AssertionError, match="never fit"):
        Arena(1 << 12).lease(1 << 13)


@given(st.lists(st.integers(0, 400), max_size=30))
def test_the_ledger_never_passes_its_budget(sizes: list[int]) -> None:
    budget = Budget(Bytes(1000))
    leases, refused = [], []
    for size in sizes:
        try:
            leases.append(budget.lease("somebody", size))
        except DoesNotFit as error:
            refused.append((size > budget.left, error.facts["holder"]))
        assert budget.held <= 1000
    assert all(row == (True, "somebody") for row in refused)
    for lease in leases:
        lease.release()
    assert budget.held == 0
    assert budget.holders() == {}

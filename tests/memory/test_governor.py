"""The governor acts before the budget is passed, cheapest first, one at a time, and undoes with patience."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caudal.core.events import Event, MemoryRelieved
from caudal.core.units import Bytes
from caudal.memory.governor import NEAR, PATIENCE_SECONDS, SETTLE_SECONDS, Governor, Rung

BUDGET = Bytes(1000)
TICK_SECONDS = 0.1


class Job:
    """Holds `base` and what its levers hold; each lever is worth some bytes, a given number of times."""

    def __init__(self, base: int, worth: list[tuple[int, int]]) -> None:
        self.now, self.base = 0.0, base
        self.worth = worth
        self.left = [times for _bytes, times in worth]
        self.acts: list[int] = []
        self.events: list[MemoryRelieved] = []
        rungs = [Rung(f"lever {k}", self._act(k), self._undo(k)) for k in range(len(worth))]
        self.governor = Governor(BUDGET, rungs, self._hear, clock=lambda: self.now)

    def _hear(self, event: Event) -> None:
        assert isinstance(event, MemoryRelieved)
        self.events.append(event)

    def _act(self, k: int):  # type: ignore[no-untyped-def]
        def act() -> bool:
            if not self.left[k]:
                return False
            self.left[k] -= 1
            self.acts.append(k)
            return True

        return act

    def _undo(self, k: int):  # type: ignore[no-untyped-def]
        def undo() -> bool:
            self.left[k] += 1
            self.acts.append(-k - 1)
            return True

        return undo

    @property
    def charged(self) -> Bytes:
        held = sum(size * left for (size, _times), left in zip(self.worth, self.left, strict=True))
        return Bytes(self.base + held)

    def run(self, seconds: float, grows: float = 0.0) -> Bytes:
        most = self.charged
        for _tick in range(round(seconds / TICK_SECONDS)):
            self.now += TICK_SECONDS
            self.base += round(grows * TICK_SECONDS)
            self.governor(self.charged)
            most = max(most, self.charged)
        return Bytes(most)


def test_with_room_nothing_is_done() -> None:
    job = Job(800, [(50, 2)])
    job.run(60)
    assert job.acts == []
    assert job.events == []


def test_the_cheapest_act_comes_first_and_only_as_many_as_are_needed() -> None:
    job = Job(700, [(100, 2), (100, 3)])
    job.run(10)
    assert job.acts == [0, 0, 1]
    assert job.charged <= NEAR * BUDGET


def test_each_act_is_told_once_with_bytes_before_and_after() -> None:
    job = Job(900, [(100, 1), (50, 1)])
    job.run(10)
    assert [(one.act, one.before, one.after) for one in job.events] == [
        ("lever 0", 1050, 950),
    ]
    assert "105%" in job.events[0].why


def test_an_act_has_time_to_show_before_the_next() -> None:
    job = Job(5000, [(1, 9)])
    job.run(3 * SETTLE_SECONDS)
    assert len(job.acts) <= 4


def test_growth_is_seen_before_the_budget_is_passed() -> None:
    job = Job(600, [(150, 1)])
    most = job.run(3, grows=100)
    assert job.acts == [0]
    assert most <= BUDGET


def test_what_was_done_is_undone_after_a_while_of_room_and_not_twice() -> None:
    job = Job(900, [(100, 1)])
    job.run(5)
    job.base = 500
    job.run(PATIENCE_SECONDS - 1)
    assert job.acts == [0]
    job.run(3)
    assert job.acts == [0, -1]
    job.base = 900  # it was too early: done again, and left so
    job.run(5)
    job.base = 500
    job.run(10 * PATIENCE_SECONDS)
    assert job.acts == [0, -1, 0]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(0, 4)), min_size=1, max_size=5),
    st.lists(st.integers(0, 1300), min_size=1, max_size=6),
)
def test_it_ends_below_the_budget_wherever_its_levers_suffice(
    worth: list[tuple[int, int]], bases: list[int]
) -> None:
    job = Job(0, worth)
    for base in bases:
        job.base = base
        job.run(40)
        levers_left = any(job.left)
        assert job.charged <= NEAR * BUDGET or not levers_left
        steady = list(job.acts)
        job.run(5)  # and it does not go on changing what is right
        assert len(job.acts) - len(steady) <= 1


@pytest.mark.parametrize("predicted", [None, 920])
def test_a_charge_that_swings_as_it_did_before_is_no_reason_to_act(predicted: int | None) -> None:
    """Steps whose blocks go back to the system swing by a third of the budget, ten times a second."""
    told: list[Event] = []
    now = [0.0]
    acts: list[str] = []
    rung = Rung("halve", lambda: not acts.append("halve"))
    governor = Governor(BUDGET, [rung], told.append, clock=lambda: now[0], predicted=predicted)  # type: ignore[arg-type]
    for tick in range(600):
        now[0] += TICK_SECONDS
        governor(Bytes((650, 780, 900)[tick % 3]))
    assert len(acts) <= (0 if predicted else 1)  # what was never seen may be taken for growth, once


@pytest.mark.parametrize("charged", [985, 1000])
def test_a_plan_that_fills_its_budget_is_left_alone_and_one_byte_more_is_not(charged: int) -> None:
    acts: list[str] = []
    now = [0.0]
    rung = Rung("halve", lambda: not acts.append("halve"))
    governor = Governor(BUDGET, [rung], lambda _event: None, clock=lambda: now[0], predicted=BUDGET)
    for _tick in range(50):
        now[0] += TICK_SECONDS
        governor(Bytes(charged))
    assert acts == []
    now[0] += TICK_SECONDS
    governor(Bytes(1001))
    assert acts == ["halve"]


def test_growth_beyond_what_was_foretold_is_met_before_the_budget_is() -> None:
    job = Job(700, [(300, 3)])
    job.governor = Governor(
        BUDGET, [Rung("lever", job._act(0))], lambda _event: None, clock=lambda: job.now, predicted=Bytes(800)
    )
    job.base -= 900
    assert job.run(20, grows=20.0) <= BUDGET
    assert job.acts

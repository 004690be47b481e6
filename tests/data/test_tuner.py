"""Threads grow while that helps, stop at the knee, and go when nobody waits."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from caudal.data.tuner import WINDOW_BATCHES, Tuner


def run(tuner: Tuner, knee: int, demand: float, windows: int) -> list[int]:
    """A loader that is faster with threads up to `knee`, and a loop that asks for `demand` samples/s."""
    now, seen = 0.0, []
    for _window in range(windows * WINDOW_BATCHES):
        supply = 100.0 * min(tuner.allowed, knee)
        rate = min(supply, demand)
        seconds = 10 / rate
        now += seconds
        stall = seconds - 10 / demand
        tuner.tell(10, stall, now)
        seen.append(tuner.allowed)
    return seen


@given(st.integers(1, 8), st.integers(1, 8))
def test_a_starved_loop_gets_all_that_help_and_no_more(most: int, knee: int) -> None:
    seen = run(Tuner(most), knee, 1e6, 60)
    assert seen.count(min(most, knee)) > 0.75 * len(seen)
    assert max(seen) <= min(most, knee + 1)


@given(st.integers(1, 8))
def test_a_slow_loop_is_left_with_few_threads(most: int) -> None:
    tuner = Tuner(most)
    run(tuner, 8, 1e6, 80)
    seen = run(tuner, 8, 150.0, 80)
    assert seen[-1] <= 3
    enough = [a for a in seen if a >= min(2, most)]
    assert len(enough) > 0.8 * len(seen)


def test_all_work_until_the_first_batch_is_there() -> None:
    tuner = Tuner(4)
    assert tuner.allowed == 4
    tuner.tell(10, 1.0, 1.0)
    assert tuner.allowed == 1


def test_it_never_leaves_its_range() -> None:
    tuner = Tuner(3)
    assert {tuner.allowed, *run(tuner, 1, 1e6, 50), *run(tuner, 9, 10.0, 50)} <= {1, 2, 3}

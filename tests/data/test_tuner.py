"""Threads grow while that helps, stop at the knee, and go when nobody waits."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from caudal.data.tuner import WINDOW_BATCHES, Tuner


def run(tuner: Tuner, knee: int, demand: float, windows: int) -> list[int]:
    """A loader that is faster with threads up to `knee`, and a loop that asks for `demand` samples/s.

    It may be called again, to go on with another demand: a window that was begun is forgotten.
    """
    now, seen = max(0.0, tuner._began), []
    tuner._batches = tuner._samples = 0
    tuner._stall_seconds = 0.0
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
def test_a_starved_loop_gets_all_that_help_and_before_long_no_more(most: int, knee: int) -> None:
    tuner = Tuner(most)
    begin, later = run(tuner, knee, 1e6, 20), run(tuner, knee, 1e6, 80)
    assert min(begin) >= min(most, knee) - 1
    assert later.count(min(most, knee)) > 0.75 * len(later)
    assert max(later) <= min(most, knee + 1)


@given(st.integers(1, 8))
def test_a_slow_loop_is_left_with_few_threads(most: int) -> None:
    tuner = Tuner(most)
    run(tuner, 8, 1e6, 80)
    seen = run(tuner, 8, 150.0, 80)
    assert seen[-1] <= 3
    enough = [a for a in seen if a >= min(2, most)]
    assert len(enough) > 0.8 * len(seen)


@given(st.integers(2, 8))
def test_a_loop_that_begins_to_wait_gets_more_threads_at_once(most: int) -> None:
    tuner = Tuner(most)
    run(tuner, 8, 90.0, 40)
    few = tuner.allowed
    assert few == 1
    assert max(run(tuner, 8, 1e6, 40)) == most


@given(st.integers(1, 8), st.floats(0.05, 1.0))
def test_a_short_epoch_that_is_waited_for_has_all_threads(most: int, seconds_a_batch: float) -> None:
    tuner, now = Tuner(most), 0.0
    for _batch in range(WINDOW_BATCHES * 8):
        now += seconds_a_batch
        tuner.tell(8, seconds_a_batch, now)
        assert tuner.allowed == most


def test_it_never_leaves_its_range() -> None:
    tuner = Tuner(3)
    assert {tuner.allowed, *run(tuner, 1, 1e6, 50), *run(tuner, 9, 10.0, 50)} <= {1, 2, 3}

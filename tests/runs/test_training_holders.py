"""Who holds bytes when a training holds most: steps, a score between them, or the last score alone."""

from __future__ import annotations

import pytest

from caudal.core.units import MIB, Bytes
from caudal.memory import cost, planner
from caudal.memory.cost import ProbeResult, Step
from caudal.memory.plan import Point
from caudal.runs.training_holders import training_holders

ARENA, STEP, LIBRARIES, MODEL, LEFT, KERNELS = 20, 90, 180, 8, 5, 3  # MiB
POINT = Point(micro_batch=4, open_blocks=1)


def predicted(scoring: int, between: bool, scoring_left: int = 0) -> float:
    """MiB beside what every phase holds, where scoring takes and leaves so many."""
    step = Step(micro_batch=4, ram=Bytes(STEP * MIB), left=Bytes(LEFT * MIB), seconds_per_sample=1.0)
    probe = ProbeResult(
        device="cpu",
        imported=Bytes(LIBRARIES * MIB),
        static={"weights": MODEL * MIB},
        steps=(step,),
        decodings=((1, Bytes(0)),),
        scoring=Bytes(scoring * MIB),
        scoring_left=Bytes(scoring_left * MIB),
    )
    rows = training_holders(probe, POINT, Bytes(ARENA * MIB), 0, 0, between)
    others = sum(h.bytes for h in rows if h.name in ("interpreter and libraries", "index, files, curves"))
    return (planner.total(rows, "ram") - others) / MIB


@pytest.mark.parametrize("between", [True, False])
def test_steps_hold_most_where_scoring_takes_little(between: bool) -> None:
    assert predicted(scoring=30, between=between) == MODEL + STEP + ARENA


def test_a_score_between_steps_finds_the_arena_full() -> None:
    assert predicted(scoring=140, between=True) == MODEL + 140 + ARENA


def test_without_one_the_last_score_finds_but_what_steps_have_left() -> None:
    assert predicted(scoring=140, between=False) == 140 + LEFT


def test_steps_find_the_kernels_of_a_score_where_one_came_before_them() -> None:
    assert predicted(scoring=30, between=True, scoring_left=KERNELS) == MODEL + STEP + ARENA + KERNELS
    assert predicted(scoring=30, between=False, scoring_left=KERNELS) == MODEL + STEP + ARENA


def test_a_score_between_steps_counts_its_kernels_once() -> None:
    assert predicted(scoring=140, between=True, scoring_left=KERNELS) == MODEL + 140 + ARENA


def test_the_last_score_finds_the_kernels_of_steps_and_scores_which_are_the_same_for_the_most_part() -> None:
    assert predicted(scoring=140, between=False, scoring_left=KERNELS) == 140 + LEFT
    assert predicted(scoring=140, between=False, scoring_left=2 * LEFT) == 140 + 2 * LEFT


def test_what_the_first_steps_left_is_counted_to_those_that_were_measured_after_them() -> None:
    """It was there already when these were measured, and in a run it is not."""
    sizes = [(1, 30, 9), (2, 28, 1), (4, 35, 1)]
    steps = [
        Step(micro_batch=n, ram=Bytes(ram), left=Bytes(left), seconds_per_sample=1.0)
        for n, ram, left in sizes
    ]
    probe = ProbeResult(device="cpu", imported=Bytes(1), static={}, steps=tuple(steps))
    points = [Point(micro_batch=n, open_blocks=1) for n, _ram, _left in sizes]
    assert [cost.step_bytes(probe, point)[0] for point in points] == [30, 28 + 8, 35 + 8]
    assert [cost.left_bytes(probe, point) for point in points] == [9, 1 + 8, 1 + 8]

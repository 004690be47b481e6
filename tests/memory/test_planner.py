import math
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caudal.core.errors import DoesNotFit
from caudal.core.units import Bytes
from caudal.memory.cost import ProbeResult, Step, decoding_bytes, line, step_bytes, step_seconds
from caudal.memory.levers.checkpointing import Checkpointing
from caudal.memory.levers.heap import Heap
from caudal.memory.levers.micro_batch import MicroBatch
from caudal.memory.levers.optimizer_state import OptimizerState
from caudal.memory.levers.prefetch import Prefetch
from caudal.memory.levers.shuffle_bytes import ShuffleBytes
from caudal.memory.levers.threads import Threads
from caudal.memory.plan import Holder, Point
from caudal.memory.planner import Lattice, plan_training, total

BASE, PER_SAMPLE, PER_BLOCK, PER_BATCH, PER_THREAD, STATE = 100, 12, 3, 2, 5, 30
LEAST = BASE + PER_SAMPLE + 2 * PER_BLOCK + PER_BATCH + PER_THREAD + STATE
"""What the smallest point takes without levers on a step."""


def holders(point: Point) -> list[Holder]:
    activations = PER_SAMPLE * point.micro_batch * (4 - point.heap - point.recompute) // 4
    return [
        Holder(name="libraries", bytes=Bytes(BASE)),
        Holder(name="activations", bytes=Bytes(activations), exact=False),
        Holder(name="samples", bytes=Bytes(PER_BLOCK * point.open_blocks + PER_BATCH * point.ahead)),
        Holder(name="decoding", bytes=Bytes(PER_THREAD * point.threads)),
        Holder(name="optimizer", bytes=Bytes(0 if point.optimizer else STATE)),
    ]


def lattice(steps: bool = False) -> Lattice:
    return Lattice(
        MicroBatch(16, 4),
        ShuffleBytes(32),
        Prefetch(2),
        Threads(2),
        Heap(int(steps)),
        Checkpointing(2 if steps else 0),
        OptimizerState(steps),
    )


def seconds(point: Point) -> float:
    """Larger is faster; each lever on a step costs its own share."""
    return (1 / point.micro_batch) * (1 + point.heap + point.recompute + 0.5 * point.optimizer)


def search(ram: int, faster: bool = True, steps: bool = False) -> Point:
    plan, point = plan_training(
        Bytes(ram), None, holders, lattice(steps), seconds if faster else lambda _point: 1.0
    )
    assert plan.predicted("ram") == total(holders(point), "ram") <= ram
    return point


def choose(ram: int, faster: bool = True) -> tuple[int, int]:
    point = search(ram, faster)
    return point.micro_batch, point.open_blocks


@given(st.integers(LEAST, 700))
def test_whatever_is_planned_fits_and_more_budget_never_means_less(ram: int) -> None:
    exact, more = choose(ram)[0] % 4 == 0, choose(ram + 50)
    assert (more[0] % 4 == 0) >= exact
    if exact and choose(ram)[1] == 32:
        assert more[0] >= choose(ram)[0]


@given(st.integers(1, LEAST - 1))
def test_what_cannot_fit_is_refused_with_the_least_that_would(ram: int) -> None:
    with pytest.raises(DoesNotFit) as caught:
        choose(ram)
    least = caught.value.facts["needed"]
    assert least == LEAST
    assert "libraries" in caught.value.message
    assert choose(int(str(least))) == (1, 2)


def test_a_larger_micro_batch_must_earn_its_bytes() -> None:
    assert choose(10_000, faster=True)[0] == 16
    assert choose(10_000, faster=False)[0] == 4


def test_the_stream_gives_way_before_the_step_and_the_step_before_its_numbers() -> None:
    least_exact = LEAST + 3 * PER_SAMPLE
    assert search(least_exact, steps=True) == Point(micro_batch=4, open_blocks=2, ahead=1, threads=1)
    tighter = search(least_exact - 1, steps=True)
    assert tighter.micro_batch == 4
    assert (tighter.heap, tighter.recompute, tighter.optimizer) != (0, 0, 0)
    assert search(least_exact - 1).micro_batch < 4
    least_of_all = BASE + 4 * PER_SAMPLE // 4 + 2 * PER_BLOCK + PER_BATCH + PER_THREAD
    assert search(least_of_all, steps=True).micro_batch == 4
    assert search(least_of_all - 1, steps=True).micro_batch < 4


def test_of_levers_on_a_step_the_fastest_that_fits_is_taken() -> None:
    wide = LEAST + 3 * PER_SAMPLE
    assert search(wide - STATE, steps=True).optimizer == 1
    assert search(wide - STATE, steps=True).recompute == 0
    one = search(wide - 12, steps=True)  # the heap alone and the state alone would do; the state is cheaper
    assert (one.heap, one.optimizer) == (0, 1)


@given(st.integers(LEAST - STATE, 700), st.sets(st.tuples(st.booleans(), st.integers(0, 2)), min_size=1))
def test_levers_that_were_not_measured_are_neither_planned_nor_named_as_the_least(
    ram: int, some: set[tuple[bool, int]]
) -> None:
    measured = {(int(heap), levels) for heap, levels in some if heap or not levels} or {(1, 2)}

    def those(point: Point) -> list[Holder]:
        assert (point.heap, point.recompute) in measured
        return holders(point)

    def time(point: Point) -> float:
        return seconds(point) if (point.heap, point.recompute) in measured else math.inf

    with suppress(DoesNotFit):
        plan_training(Bytes(ram), None, those, lattice(True), time)


@given(st.integers(LEAST - STATE, 700), st.booleans())
def test_every_point_that_was_passed_over_did_not_fit(ram: int, steps: bool) -> None:
    try:
        chosen = search(ram, steps=steps)
    except DoesNotFit:
        return
    for row in lattice(steps).rows(seconds):
        if chosen in row:
            break
        assert all(total(holders(point), "ram") > ram for point in row)


def on_card(point: Point) -> list[Holder]:
    """The same with a card: what is computed lies there, samples beside it."""
    there = ("activations", "optimizer")
    return [h.model_copy(update={"pool": "vram"}) if h.name in there else h for h in holders(point)]


@given(st.integers(1, 400), st.integers(1, 400))
def test_of_two_budgets_the_one_that_is_short_is_refused_with_its_own_least(ram: int, vram: int) -> None:
    least = {"ram": LEAST - PER_SAMPLE - STATE, "vram": PER_SAMPLE + STATE}
    given = {"ram": ram, "vram": vram}

    def search_on_card() -> Point:
        return plan_training(Bytes(given["ram"]), Bytes(given["vram"]), on_card, lattice(), seconds)[1]

    short = [pool for pool in ("ram", "vram") if given[pool] < least[pool]]
    for pool in short:  # what is asked for is enough, and the other pool is named next
        with pytest.raises(DoesNotFit) as caught:
            search_on_card()
        assert caught.value.facts["pool"] == pool
        assert (caught.value.facts["needed"], caught.value.facts["budget"]) == (least[pool], given[pool])
        assert f"--{pool}" in caught.value.hint
        given[pool] = least[pool]
    point = search_on_card()
    assert total(on_card(point), "vram") <= given["vram"]
    assert total(on_card(point), "ram") <= given["ram"]


def test_a_neighbour_that_was_passed_over_names_the_pool_that_it_is_too_large_for() -> None:
    plan, point = plan_training(Bytes(10_000), Bytes(STATE + 4 * PER_SAMPLE), on_card, lattice(), seconds)
    assert point.micro_batch == 4
    assert {row.why.split(" of ")[1] for row in plan.rejected} == {"vram"}


def test_a_line_passes_through_what_was_measured() -> None:
    points = [(4.0, 50.0), (8.0, 90.0), (16.0, 180.0)]
    assert [line(points, x) for x, _y in points] == [50.0, 90.0, 180.0]
    assert line(points, 12) == 135.0
    assert line(points, 32) == 360.0
    assert line(points, 1) == 50.0  # never below what the smallest really took


def test_a_probe_predicts_between_its_sizes() -> None:
    def at(size: int, **levers: int) -> Point:
        return Point(micro_batch=size, open_blocks=2, **levers)

    steps = tuple(Step(micro_batch=m, ram=Bytes(10 * m), seconds_per_sample=1.0) for m in (4, 8))
    decodings = ((2, Bytes(30)), (1, Bytes(20)))
    probe = ProbeResult(
        device="cpu", imported=Bytes(1), static={"weights": 5}, steps=steps, decodings=decodings,
        elsewhere_seconds=4.0,
    )  # fmt: skip
    assert step_bytes(probe, at(6)) == (60, 0)
    assert probe.static_bytes == 5
    thrifty = Step(micro_batch=4, heap=1, recompute=2, ram=Bytes(9), seconds_per_sample=3.0)
    both = probe.model_copy(update={"steps": (*steps, thrifty)})
    assert step_bytes(both, at(4, heap=1, recompute=2)) == (9, 0)
    assert step_bytes(both, at(6)) == (60, 0)
    assert step_seconds(both, at(4, heap=1, recompute=2), 8) == 3.0
    assert step_seconds(both, at(4, heap=1, recompute=2, optimizer=1), 8) == 3.5
    assert step_seconds(both, at(4, heap=1, recompute=1), 8) == math.inf
    assert [decoding_bytes(both, threads) for threads in (1, 2)] == [20, 30]

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caudal.core.errors import DoesNotFit
from caudal.core.units import Bytes
from caudal.memory.cost import ProbeResult, Step, line, step_bytes, step_seconds
from caudal.memory.levers.micro_batch import MicroBatch
from caudal.memory.levers.shuffle_bytes import ShuffleBytes
from caudal.memory.levers.thrift import Thrift
from caudal.memory.plan import Holder
from caudal.memory.planner import Lattice, Point, plan_training, total

BASE, PER_SAMPLE, PER_BLOCK = 100, 10, 3


def holders(point: Point) -> list[Holder]:
    activations = PER_SAMPLE * point.micro_batch * (4 - point.thrift) // 4
    return [
        Holder(name="libraries", bytes=Bytes(BASE)),
        Holder(name="activations", bytes=Bytes(activations), exact=False),
        Holder(name="samples", bytes=Bytes(PER_BLOCK * point.open_blocks)),
    ]


def search(ram: int, faster: bool = True, furthest: int = 0) -> Point:
    def seconds(point: Point) -> float:
        return (1 / point.micro_batch if faster else 1.0) * (1 + point.thrift)

    lattice = Lattice(MicroBatch(16, 4), ShuffleBytes(32), Thrift(furthest))
    plan, point = plan_training(Bytes(ram), None, holders, lattice, seconds)
    assert plan.predicted("ram") == total(holders(point), "ram") <= ram
    return point


def choose(ram: int, faster: bool = True) -> tuple[int, int]:
    point = search(ram, faster)
    return point.micro_batch, point.open_blocks


@given(st.integers(BASE + PER_SAMPLE + 2 * PER_BLOCK, 600))
def test_whatever_is_planned_fits_and_more_budget_never_means_less(ram: int) -> None:
    exact, more = choose(ram)[0] % 4 == 0, choose(ram + 50)
    assert (more[0] % 4 == 0) >= exact
    if exact and choose(ram)[1] == 32:
        assert more[0] >= choose(ram)[0]


@given(st.integers(1, BASE + PER_SAMPLE + 2 * PER_BLOCK - 1))
def test_what_cannot_fit_is_refused_with_the_least_that_would(ram: int) -> None:
    with pytest.raises(DoesNotFit) as caught:
        choose(ram)
    least = caught.value.facts["needed"]
    assert least == BASE + PER_SAMPLE + 2 * PER_BLOCK
    assert "libraries" in caught.value.message
    assert choose(int(str(least))) == (1, 2)


def test_a_larger_micro_batch_must_earn_its_bytes() -> None:
    assert choose(10_000, faster=True)[0] == 16
    assert choose(10_000, faster=False)[0] == 4


def test_shuffling_less_comes_before_statistics_of_fewer_samples() -> None:
    size, blocks = choose(BASE + 4 * PER_SAMPLE + 4 * PER_BLOCK)
    assert (size, blocks) == (4, 4)


def test_thrift_comes_before_statistics_change_and_no_sooner() -> None:
    least_exact = BASE + 4 * PER_SAMPLE + 2 * PER_BLOCK
    assert search(least_exact, furthest=2) == Point(4, 2, 0)
    assert search(least_exact - 1, furthest=2).thrift == 1
    assert search(BASE + 2 * PER_SAMPLE + 2 * PER_BLOCK, furthest=2) == Point(4, 2, 2)
    assert search(least_exact - 1, furthest=0).micro_batch < 4


@given(st.integers(BASE + PER_SAMPLE // 2 + 2 * PER_BLOCK, 600), st.integers(0, 2))
def test_every_point_that_was_passed_over_did_not_fit(ram: int, furthest: int) -> None:
    try:
        chosen = search(ram, furthest=furthest)
    except DoesNotFit:
        return
    lattice = Lattice(MicroBatch(16, 4), ShuffleBytes(32), Thrift(furthest))
    for row in lattice.rows():
        if chosen in row:
            break
        assert all(total(holders(point), "ram") > ram for point in row)


def test_a_line_passes_through_what_was_measured() -> None:
    points = [(4.0, 50.0), (8.0, 90.0), (16.0, 180.0)]
    assert [line(points, x) for x, _y in points] == [50.0, 90.0, 180.0]
    assert line(points, 12) == 135.0
    assert line(points, 32) == 360.0
    assert line(points, 1) == 50.0  # never below what the smallest really took


def test_a_probe_predicts_between_its_sizes() -> None:
    steps = tuple(Step(micro_batch=m, ram=Bytes(10 * m), seconds_per_sample=1.0) for m in (4, 8))
    probe = ProbeResult(device="cpu", imported=Bytes(1), static={"weights": 5}, steps=steps)
    assert step_bytes(probe, 6) == (60, 0)
    assert probe.static_bytes == 5
    thrifty = Step(micro_batch=4, thrift=2, ram=Bytes(9), seconds_per_sample=3.0)
    both = probe.model_copy(update={"steps": (*steps, thrifty)})
    assert step_bytes(both, 4, 2) == (9, 0)
    assert step_bytes(both, 6) == (60, 0)
    assert step_seconds(both, 4, 2) == 3.0

"""What a probe measured before it was ended counts; one that measured nothing begins again with the least."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace
from typing import Any

import pytest

from caudal.core.errors import (
    BadModel,
    BadValues,
    CaudalError,
    DeviceMissing,
    DoesNotFit,
    OutOfMemory,
    UnreadableFile,
    to_record,
)
from caudal.core.units import MIB, Bytes
from caudal.memory.cost import ProbeResult, Step
from caudal.runs import probe, probe_child, probe_subject
from caudal.runs.probe import COMPLETE, TRAINING, ProbeRequest
from caudal.runs.probe_subject import Room, Subject
from caudal.runs.spec import RunSpec

SINGLE = Step(micro_batch=1, ram=Bytes(1), seconds_per_sample=1.0)  # is not exact
WHOLE = Step(micro_batch=4, ram=Bytes(3), seconds_per_sample=1.0)
THRIFTY = Step(micro_batch=4, heap=1, recompute=2, ram=Bytes(2), seconds_per_sample=1.5)


def found(*steps: Step) -> dict[str, Any]:
    """What a child says after the last of these."""
    return {"found": ProbeResult(device="cpu", imported=Bytes(1), static={}, steps=steps).model_dump()}


def request() -> ProbeRequest:
    spec = RunSpec.make({"task": "segmentation", "data": {"images": ["set"]}})
    return ProbeRequest(spec=spec, told={}, exact=(4, 8), inexact=(1, 2), ram=Bytes(1024 * MIB), threads=1)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[bool, list[dict[str, Any]]]:
    """What a child says, by whether it began with the least."""
    said: dict[bool, list[dict[str, Any]]] = {}
    monkeypatch.setattr(probe, "_run", lambda one: said.pop(one.thrifty))
    return said


def test_what_was_measured_before_the_end_is_used(asked: dict[bool, list[dict[str, Any]]]) -> None:
    asked[False] = [{"measures": "reading"}, TRAINING, found(WHOLE)]
    assert probe.ask(request()).steps == (WHOLE,)


def test_one_that_ended_at_its_first_step_begins_again_with_the_least(
    asked: dict[bool, list[dict[str, Any]]],
) -> None:
    asked[False], asked[True] = [{"measures": "scoring"}, TRAINING], [TRAINING, found(THRIFTY)]
    assert probe.ask(request()).steps == (THRIFTY,)
    assert not asked, "both were asked"


def test_one_that_ended_before_an_exact_micro_batch_is_asked_again_and_both_count(
    asked: dict[bool, list[dict[str, Any]]],
) -> None:
    asked[False], asked[True] = [TRAINING, found(SINGLE)], [TRAINING, found(THRIFTY), COMPLETE]
    assert set(probe.ask(request()).steps) == {SINGLE, THRIFTY}


def test_what_the_first_measured_counts_where_the_second_measured_nothing(
    asked: dict[bool, list[dict[str, Any]]],
) -> None:
    asked[False], asked[True] = [TRAINING, found(SINGLE)], [TRAINING]
    assert probe.ask(request()).steps == (SINGLE,)


def test_one_that_ended_by_itself_is_not_asked_again(asked: dict[bool, list[dict[str, Any]]]) -> None:
    asked[False] = [TRAINING, found(SINGLE), COMPLETE]
    assert probe.ask(request()).steps == (SINGLE,)


@pytest.mark.parametrize(
    ("told", "stage"),
    [([], "libraries"), ([{"measures": "reading"}], "reading"), ([{"measures": "scoring"}], "scoring")],
)
def test_one_that_ended_before_says_where(
    asked: dict[bool, list[dict[str, Any]]], told: list[dict[str, Any]], stage: str
) -> None:
    asked[False] = told
    with pytest.raises(DoesNotFit, match=stage):
        probe.ask(request())


def test_one_that_has_no_room_for_the_least_step_says_so(asked: dict[bool, list[dict[str, Any]]]) -> None:
    asked[False] = asked[True] = [TRAINING]
    with pytest.raises(DoesNotFit, match="a training step"):
        probe.ask(request())


@pytest.mark.parametrize("kind", [UnreadableFile, BadModel, OutOfMemory, BadValues, DeviceMissing])
def test_whatever_a_child_found_is_raised_as_it_was(
    asked: dict[bool, list[dict[str, Any]]], kind: type[CaudalError]
) -> None:
    facts = {"path": "a.tif"} if kind is UnreadableFile else {"size": 3}
    asked[False] = [TRAINING, {"error": to_record(kind("What is so.", "What mends it.", **facts))}]
    with pytest.raises(kind, match="What is so") as raised:
        probe.ask(request())
    assert (raised.value.hint, raised.value.facts) == ("What mends it.", facts)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: not enough memory")])
def test_a_child_that_finds_no_memory_ends_as_one_that_the_kernel_ended(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_request: object) -> None:
        probe_child._say(TRAINING)
        raise error

    monkeypatch.setattr(probe_child, "measure", fail)
    monkeypatch.setattr("sys.stdin", io.StringIO(request().model_dump_json()))
    probe_child.main()
    assert json.loads(capsys.readouterr().out) == TRAINING


@pytest.mark.parametrize(
    ("slow_from", "room", "measured"),
    [
        (1, 1e9, [1, 4, 16]),
        (2, 1e9, [1, 2, 4, 16]),
        (32, 1e9, [1, 2, 4, 8, 16]),
        (1, 3, [1, 2]),
        (1, 9, [1, 4, 8]),
        (1, 1, [1]),
        (32, 9, [1, 2, 4, 8]),
    ],
)
def test_where_steps_take_long_sizes_are_left_out_but_never_the_least_exact_one_nor_the_last_that_fits(
    slow_from: int, room: float, measured: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(probe_subject, "time", clock)

    def step(size: int, _meter: object, smallest: bool) -> Step:
        clock.now += 60.0 * (size >= slow_from)
        return SINGLE.model_copy(update={"micro_batch": size, "ram": Bytes(size)})

    subject: Any = SimpleNamespace(_tried=step)
    meter: Any = None
    found = Subject.steps(subject, (1, 2, 4, 8, 16), Room(room), meter, wanted=4)
    assert [one.micro_batch for one in found] == measured


@pytest.mark.parametrize(
    ("budget", "smallest", "few"),
    [(130, True, True), (130, False, False), (145, True, False), (None, True, False)],
)
def test_the_least_step_is_not_repeated_once_it_passes_its_room_by_all_that_may_leave(
    budget: int | None, smallest: bool, few: bool
) -> None:
    taken: list[int] = []
    batch = SimpleNamespace(size=1, nbytes=0)
    meter: Any = SimpleNamespace(reset=lambda: None, peak=lambda: 150)
    subject: Any = SimpleNamespace(
        stepper=SimpleNamespace(run=lambda *_: taken.append(1)),
        rehearsal=SimpleNamespace(parts=None, steps=2, batch=lambda *_: batch),
        average=SimpleNamespace(update=lambda *_: None),
        static={"weights": 10, "optimizer": 10},
        model=None,
        card=None,
        imported=100,
        held=20,
        left_by_scoring=0,
        device="cpu",
        batch=4,
        ram=None if budget is None else Bytes(budget),
        _left_so_far=lambda: 0,
    )
    subject.room = lambda ram: Subject.room(subject, ram)
    subject._is_hopeless = lambda ram: Subject._is_hopeless(subject, ram)
    step = Subject._step(subject, 1, meter, smallest)  # of 30, beside 120
    assert step.ram == 30
    assert (len(taken) == 2) == few
    assert len(taken) >= 2


@pytest.mark.parametrize(("available", "left"), [(60, 50), (500, 100), (None, 100)])
def test_steps_are_measured_as_far_as_this_machine_has_room_now(
    available: int | None, left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asked lies beside the probe, in the same group; a kill there says nothing of the run."""

    def available_ram() -> Bytes:
        if available is None:
            raise RuntimeError("no meter tells")
        return Bytes(available)

    monkeypatch.setattr(probe_subject, "available_ram", available_ram)
    monkeypatch.setattr(probe_subject, "charged_bytes", lambda: Bytes(200))
    subject: Any = SimpleNamespace(imported=180, left_by_scoring=10, held=20, card=None)
    assert Subject.at_hand(subject, Room(100)).ram == left

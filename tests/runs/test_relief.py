"""A run whose charge passes its budget does with less, and stops with a checkpoint when nothing is left."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

import caudal
from caudal.core.errors import OutOfMemory
from caudal.core.events import CheckpointSaved, Event, MemoryRelieved, StepDone
from caudal.core.units import Bytes
from caudal.memory.meters import charged_bytes
from caudal.runs.plan import TrainPlan
from caudal.runs.relief import _halving
from caudal.runs.spec import RunSpec

pytestmark = pytest.mark.usefixtures("warm")


def planned(tiny_set: Path, steps: int) -> TrainPlan:
    spec = RunSpec.make(
        {
            "task": "segmentation",
            "data": {"images": [str(tiny_set)]},
            "model": {"config": {"width": 8, "depth": 2}},
            "training": {"steps": steps, "batch": 16, "validate_every": steps, "checkpoint_steps": 10**6},
        }
    )
    return caudal.plan(spec, ram="900MiB")


def with_budget(plan: TrainPlan, ram: int) -> TrainPlan:
    return plan.model_copy(update={"memory": plan.memory.model_copy(update={"ram": Bytes(ram)})})


@pytest.mark.timeout(120)
def test_above_its_budget_a_run_frees_shrinks_and_at_last_stops_with_a_checkpoint(
    tiny_set: Path, tmp_path: Path
) -> None:
    plan = planned(tiny_set, 5000)
    plan = plan.model_copy(update={"point": plan.point.model_copy(update={"micro_batch": 16})})
    heard: list[Event] = []
    # A budget that the interpreter alone passes: every rung is tried, and none is enough.
    holders = sum(holder.bytes for holder in plan.memory.holders if holder.pool == "ram")
    less = with_budget(plan, holders)
    monkey = pytest.MonkeyPatch()
    much = Bytes(2 * holders)
    monkey.setattr("caudal.memory.meters._charged_tree", lambda *_asked: (much, much))
    try:
        with pytest.raises(OutOfMemory, match="nothing smaller is left"):
            caudal.train(less, out=tmp_path / "run", listeners=[heard.append])
    finally:
        monkey.undo()
    acts = [event.act for event in heard if isinstance(event, MemoryRelieved)]
    assert acts[0] == "give free heap back"
    assert acts[1:-1] == ["smaller micro-batch, same step"] * 2  # 16 to 8 to 4: groups stay whole
    assert acts[-1] == "checkpoint and stop"
    steps = [event.step for event in heard if isinstance(event, StepDone)]
    saved = [event.step for event in heard if isinstance(event, CheckpointSaved)]
    assert saved[-1] == steps[-1]
    assert charged_bytes() > 0


@pytest.mark.timeout(120)
def test_inside_its_budget_a_run_is_left_alone(tiny_set: Path, tmp_path: Path) -> None:
    heard: list[Event] = []
    caudal.train(
        with_budget(planned(tiny_set, 20), 4 * 2**30), out=tmp_path / "run", listeners=[heard.append]
    )
    assert not [event for event in heard if isinstance(event, MemoryRelieved)]


def test_what_a_step_that_ran_out_of_memory_fell_back_to_is_not_undone() -> None:
    """Room that came back does not make a size fit for which there was no memory."""
    sizes = {16: 8, 8: 4}
    stepper = SimpleNamespace(micro_batch=16, next_smaller=lambda: sizes.get(stepper.micro_batch))
    rung = _halving(stepper)  # type: ignore[arg-type]
    assert rung.act()
    assert rung.undo()
    assert stepper.micro_batch == 16
    assert rung.act()
    stepper.micro_batch = 4  # the step was taken again
    assert not rung.undo()
    assert stepper.micro_batch == 4

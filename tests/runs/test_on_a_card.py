"""A run on a card is promised its VRAM, keeps to it, and does with less: on a model of a card (`tests.card`).

No GPU is needed, and what a real one adds is not seen here: the room that kernels take beside their tensors.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import caudal
from caudal.core.errors import DoesNotFit
from caudal.core.events import Event, MemoryRelieved, StepDone, Validated
from caudal.core.units import MIB, Bytes
from caudal.memory.plan import MemoryPlan
from caudal.runs.plan import TrainPlan
from caudal.runs.relief import governed
from caudal.runs.result import Result
from caudal.runs.spec import RunSpec
from tests.card.card import Card, probing_here

TOLERANCE = 0.1
RAM = "3GiB"


def spec_of(data: Path, **training: Any) -> RunSpec:
    return RunSpec.make(
        {
            "task": "segmentation",
            "device": "cuda",
            "data": {"images": [str(data)], "patch_px": 64},
            "model": {"config": {"width": 8, "depth": 2}},
            "training": {"steps": 6, "batch": 16, "validate_every": 2, "precision": "fp32", **training},
        }
    )


def losses(heard: list[Event]) -> list[float]:
    return [event.loss for event in heard if isinstance(event, StepDone)]


@dataclass(frozen=True)
class Whole:
    """A run that had room for its whole batch; `taken` is what the card counted."""

    plan: TrainPlan
    result: Result
    heard: list[Event]
    taken: int


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Card]:
    """A card of 1 GiB that computes in this process, with nothing learned of earlier runs."""
    threads, made = torch.get_num_threads(), Card(1024 * MIB)
    with pytest.MonkeyPatch.context() as patch, made.installed(), probing_here(made):
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        # The largest micro-batch that fits, whatever a busy machine measured.
        patch.setattr("caudal.memory.cost.step_seconds", lambda _probe, point, _batch: 1 / point.micro_batch)
        yield made
    made.afresh()
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def whole(installed: Card, tiny_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    heard: list[Event] = []
    installed.afresh()
    plan = caudal.plan(spec_of(tiny_set), ram=RAM)
    result = caudal.train(plan, out=tmp_path_factory.mktemp("runs") / "whole", listeners=[heard.append])
    return Whole(plan, result, heard, installed.blocks.most_reserved)


@pytest.fixture
def card(installed: Card, whole: Whole) -> Card:
    """The card as a new process finds it."""
    installed.afresh()
    installed.blocks.others = installed.blocks.refused = 0
    return installed


def test_what_a_plan_promises_of_the_card_is_what_the_run_takes(card: Card, whole: Whole) -> None:
    plan = whole.plan
    assert plan.device == "cuda"
    assert plan.memory.vram == int(0.9 * (1024 - 256) * MIB)  # of what is free beside the context
    on_card = {holder.name: holder.bytes for holder in plan.memory.holders if holder.pool == "vram"}
    assert {"weights", "gradients", "optimizer", "activations and workspace"} < set(on_card)
    assert on_card["margin of a first run"] > 0
    assert whole.result.peak_bytes is not None
    assert whole.result.peak_bytes["vram"] == whole.taken
    promised = plan.memory.predicted("vram") / (1 + plan.margin_vram)
    assert abs(promised / whole.taken - 1) <= TOLERANCE
    assert whole.taken <= plan.memory.predicted("vram")
    assert not card.blocks.allocated, "what a run held is gone with it"


def test_a_probe_begins_a_new_mark_of_the_card_for_each_size(whole: Whole) -> None:
    steps = {step.micro_batch: step.vram for step in whole.plan.probe.steps}
    assert sorted(steps, key=lambda size: steps[size]) == [4, 8, 16]
    # Scoring was measured first and took more.
    assert max(steps.values()) < whole.plan.probe.forwards[-1].vram


def test_what_a_run_took_of_the_card_is_learned_for_the_next_plan(
    card: Card, whole: Whole, tiny_set: Path
) -> None:
    again = caudal.plan(spec_of(tiny_set), ram=RAM)
    margins = [(h.pool, h.name) for h in again.memory.holders if h.name.startswith("margin")]
    assert margins == [("ram", "margin, learned from 1 runs"), ("vram", "margin, learned from 1 runs")]


def test_under_a_cap_below_the_whole_batch_smaller_parts_take_the_same_steps(
    card: Card, whole: Whole, tiny_set: Path, tmp_path: Path
) -> None:
    cap = Bytes(whole.taken * 3 // 4)
    tight = caudal.plan(spec_of(tiny_set), ram=RAM, vram=cap)
    assert (whole.plan.micro_batch, tight.micro_batch) == (16, 8)
    assert tight.memory.predicted("vram") <= cap == tight.memory.vram
    heard: list[Event] = []
    card.blocks.refused = 0  # the probe may look for the end of the room
    caudal.train(tight, out=tmp_path / "parts", listeners=[heard.append])
    assert card.blocks.limit * card.blocks.total == pytest.approx(cap)
    assert card.blocks.most_reserved <= cap
    assert not card.blocks.refused
    assert not [event for event in heard if isinstance(event, MemoryRelieved)]
    assert losses(heard) == pytest.approx(losses(whole.heard), rel=1e-3)


def test_when_others_take_the_card_after_the_plan_a_step_is_taken_again_in_parts(
    card: Card, whole: Whole, tmp_path: Path
) -> None:
    need = {step.micro_batch: step.vram for step in whole.plan.probe.steps}
    heard: list[Event] = []

    def neighbour(event: Event) -> None:
        """Takes what a score gave back, all but what half of the batch needs."""
        heard.append(event)
        if isinstance(event, Validated) and not card.blocks.others:
            card.blocks.others = card.blocks.left - (need[8] + need[16]) // 2

    caudal.train(whole.plan, out=tmp_path / "beside", listeners=[neighbour])
    (relieved,) = [event for event in heard if isinstance(event, MemoryRelieved)]
    assert (relieved.pool, relieved.act) == ("vram", "the same step with 8 at a time")
    assert relieved.before > relieved.after > 0
    assert card.blocks.refused
    assert losses(heard) == pytest.approx(losses(whole.heard), rel=1e-3)


def test_near_its_budget_of_the_card_a_run_gives_back_what_is_free_and_then_takes_smaller_parts(
    card: Card,
) -> None:
    sizes = {16: 8}
    stepper = SimpleNamespace(micro_batch=16, next_smaller=lambda: sizes.get(stepper.micro_batch))
    watch: Any = SimpleNamespace(governor=None, now=lambda: Bytes(1))
    loop: Any = SimpleNamespace(stepper=stepper)
    heard: list[Event] = []
    held = torch.zeros(30 * MIB, dtype=torch.uint8, device="cuda")
    passing = torch.zeros(30 * MIB, dtype=torch.uint8, device="cuda")
    del passing  # its block is kept
    memory = MemoryPlan(ram=Bytes(4096 * MIB), vram=Bytes(60 * MIB), holders=())
    with governed(loop, memory, watch, heard.append):
        watch.governor(Bytes(1))
    assert card.blocks.reserved == 30 * MIB
    clock = itertools.count(step=2.0)  # longer than an act takes to show
    with governed(
        loop, memory.model_copy(update={"vram": Bytes(30 * MIB)}), watch, heard.append, clock.__next__
    ):
        for _look in range(2):
            watch.governor(Bytes(1))
        assert stepper.micro_batch == 8
    acts = [(e.act, e.pool, e.before, e.after) for e in heard if isinstance(e, MemoryRelieved)]
    assert acts == [
        ("give free device memory back", "vram", 60 * MIB, 30 * MIB),
        ("give free device memory back", "vram", 30 * MIB, 30 * MIB),
        ("smaller micro-batch, same step", "vram", 30 * MIB, 30 * MIB),
    ]
    assert len(held) == 30 * MIB


@pytest.mark.parametrize("budget", [200 * 1024, MIB], ids=["the weights", "their blocks"])
def test_what_the_card_cannot_hold_is_refused_by_the_pool_that_is_short(
    card: Card, tiny_set: Path, budget: int
) -> None:
    with pytest.raises(DoesNotFit) as caught:
        caudal.plan(spec_of(tiny_set), ram=RAM, vram=budget)
    assert caught.value.facts["pool"] == "vram"
    assert caught.value.facts["budget"] == budget
    assert "--vram" in caught.value.hint

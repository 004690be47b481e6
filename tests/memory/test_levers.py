"""What every lever promises: positions, the same numbers where it says so, and fewer bytes really."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from caudal.data.stream import Batch
from caudal.memory import allocator
from caudal.memory.levers import LEVERS
from caudal.models.unet import UNet, UNetConfig
from caudal.runs.assemble import make_thrifty
from caudal.tasks.segmentation.task import Segmentation
from caudal.training import precision
from caudal.training.adamw import AdamW
from caudal.training.step import Stepper

DEPTH, GROUP, BATCH = 2, 2, 8
MADE: dict[str, tuple[Any, ...]] = {
    "micro_batch": (BATCH, GROUP),
    "shuffle_bytes": (32,),
    "thrift": (2,),
}


def stepper() -> Stepper:
    torch.manual_seed(3)
    model = UNet(2, 2, UNetConfig(width=8, depth=DEPTH, stem=1, group=GROUP))
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    number = precision.choose("cpu", "fp32")

    def prepare(batch: Batch, part: slice) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.from_numpy(batch.x_BHWC[part]).permute(0, 3, 1, 2)
        return x, torch.from_numpy(batch.y_BHW[part])

    return Stepper(
        model, Segmentation(("0", "1")), AdamW(model.parameters(), 1e-3, 0.01), number.scaler(), number,
        prepare, BATCH, 1.0,
    )  # fmt: skip


def set_to(one: Stepper, lever: str, position: int) -> None:
    if lever == "micro_batch":
        one.micro_batch = position
    elif lever == "thrift":
        make_thrifty(one.model, position)


def batch(seed: int) -> Batch:
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(BATCH, 32, 32, 2)).astype(np.float32)
    return Batch(x, (x[..., 0] > 0.3).astype(np.uint8), np.zeros(BATCH, np.int64), np.arange(BATCH), 0.0)


@pytest.fixture(autouse=True)
def _allocator() -> Iterator[None]:
    yield
    allocator.settle()  # a lever sets the whole process


def losses(lever: str, position: int) -> tuple[list[float], dict[str, torch.Tensor]]:
    one = stepper()
    set_to(one, lever, position)
    return [one.run(batch(k), 1e-3) for k in range(4)], one.model.state_dict()


def test_every_lever_is_made_here() -> None:
    assert set(MADE) == set(LEVERS.names())


@pytest.mark.parametrize("name", sorted(MADE))
def test_positions_are_different_and_there_is_always_one(name: str) -> None:
    lever = LEVERS.get(name)(*MADE[name])
    positions = lever.positions()
    assert len(set(positions)) == len(positions) > 1
    assert lever.name == name
    assert isinstance(lever.exact, bool)


def test_thrift_keeps_every_bit_of_losses_weights_and_statistics() -> None:
    expected, weights = losses("thrift", 0)
    for position in LEVERS.get("thrift")(2).positions()[1:]:
        found, state = losses("thrift", position)
        assert found == expected
        for name, value in weights.items():
            assert torch.equal(state[name], value), name


def test_exact_micro_batches_keep_losses_to_rounding() -> None:
    lever = LEVERS.get("micro_batch")(BATCH, GROUP)
    expected, _weights = losses("micro_batch", BATCH)
    for position in lever.positions():
        if lever.is_exact(position):
            assert losses("micro_batch", position)[0] == pytest.approx(expected, rel=1e-5)


_CHILD = """
import json, sys, torch
from caudal.memory.meters import PeakMeter, charged_bytes
from caudal.runs.machine import settle
settle()
torch.set_num_threads(1)
from caudal.models.unet import UNet, UNetConfig
from caudal.runs.assemble import make_thrifty
model = UNet(3, 2, UNetConfig(width=16, depth=3, stem=1)).to(memory_format=torch.channels_last)
make_thrifty(model, int(sys.argv[1]))
x = torch.randn(int(sys.argv[2]), 3, 160, 160)
meter, before = PeakMeter(), charged_bytes()
for _ in range(2):
    model(x).square().mean().backward()
print(json.dumps(meter.peak() - before))
"""


def measured(thrift: int, micro_batch: int) -> int:
    """Bytes that a step really takes, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, str(thrift), str(micro_batch)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return int(json.loads(done.stdout))


def test_levers_on_a_step_really_lower_its_peak() -> None:
    whole, half = measured(0, 8), measured(0, 4)
    given_back, computed_again = measured(1, 8), measured(2, 8)
    assert half < 0.7 * whole
    assert given_back < 0.85 * whole
    assert computed_again < 0.95 * given_back

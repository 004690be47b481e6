"""What every lever promises: positions, the same numbers where it says so, and fewer bytes really."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from caudal.core.errors import DiskFull, UsageError
from caudal.data.stream import Batch
from caudal.memory import allocator, file_systems
from caudal.memory.levers import LEVERS
from caudal.memory.levers.optimizer_state import OptimizerState
from caudal.memory.levers.weights import Weights
from caudal.models.autoencoder import Autoencoder, AutoencoderConfig
from caudal.models.fold import folded
from caudal.models.residual import ResidualConfig, ResidualNet
from caudal.models.unet import UNet, UNetConfig
from caudal.runs.assemble import make_thrifty
from caudal.tasks.segmentation.task import Segmentation
from caudal.training import precision
from caudal.training.adamw import AdamW
from caudal.training.state_elsewhere import shares
from caudal.training.step import Stepper

DEPTH, GROUP, BATCH = 2, 2, 8
MADE: dict[str, tuple[Any, ...]] = {
    "micro_batch": (BATCH, GROUP),
    "shuffle_bytes": (32,),
    "prefetch": (2,),
    "threads": (4,),
    "heap": (),
    "checkpointing": (DEPTH + 1,),
    "optimizer_state": (),
    "precision": ("fp32",),
    "patch": (128,),
    "tile": ((512, 256),),
    "weights": (),
}
ON_A_STEP = ("heap", "checkpointing", "optimizer_state")
"""Exact levers that a step is taken with."""


def stepper(elsewhere: Path | None = None) -> Stepper:
    torch.manual_seed(3)
    model = UNet(2, 2, UNetConfig(width=8, depth=DEPTH, stem=1, group=GROUP))
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    number = precision.choose("cpu", "fp32")

    def prepare(batch: Batch, part: slice) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.from_numpy(batch.x_BHWC[part]).permute(0, 3, 1, 2)
        return x, torch.from_numpy(batch.y_BHW[part])

    return Stepper(
        model, Segmentation(("0", "1")), AdamW(model.parameters(), 1e-3, 0.01, elsewhere=elsewhere),
        number.scaler(), number,
        prepare, BATCH, 1.0,
    )  # fmt: skip


def batch(seed: int) -> Batch:
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(BATCH, 32, 32, 2)).astype(np.float32)
    return Batch(x, (x[..., 0] > 0.3).astype(np.uint8), np.zeros(BATCH, np.int64), np.arange(BATCH), 0.0)


@pytest.fixture(autouse=True)
def _allocator() -> Iterator[None]:
    yield
    allocator.settle()  # a lever sets the whole process


def losses(lever: str, position: int, folder: Path) -> tuple[list[float], dict[str, torch.Tensor]]:
    one = stepper(folder if (lever, position) == ("optimizer_state", OptimizerState.ELSEWHERE) else None)
    if lever == "micro_batch":
        one.micro_batch = position
    elif lever == "heap":
        make_thrifty(one.model, position, 0)
    elif lever == "checkpointing":
        make_thrifty(one.model, 0, position)
    found = [one.run(batch(k), 1e-3) for k in range(4)]
    return found, {**one.model.state_dict(), **one.optimizer.tensors()}


def test_every_lever_is_made_here() -> None:
    assert set(MADE) == set(LEVERS.names())


@pytest.mark.parametrize("name", sorted(MADE))
def test_positions_are_different_and_there_is_always_one(name: str) -> None:
    lever = LEVERS.get(name)(*MADE[name])
    positions = lever.positions()
    assert len(set(positions)) == len(positions) > 1
    assert lever.name == name
    assert isinstance(lever.exact, bool)


@pytest.mark.parametrize("name", ON_A_STEP)
def test_an_exact_lever_keeps_every_bit_of_losses_weights_and_state(name: str, tmp_path: Path) -> None:
    lever = LEVERS.get(name)(*MADE[name])
    assert lever.exact
    first, *others = lever.positions()
    expected, weights = losses(name, first, tmp_path)
    for position in others:
        found, state = losses(name, position, tmp_path)
        assert found == expected
        for key, value in weights.items():
            assert torch.equal(state[key], value), key


def test_exact_micro_batches_keep_losses_to_rounding(tmp_path: Path) -> None:
    lever = LEVERS.get("micro_batch")(BATCH, GROUP)
    expected, _weights = losses("micro_batch", BATCH, tmp_path)
    for position in lever.positions():
        if lever.is_exact(position):
            assert losses("micro_batch", position, tmp_path)[0] == pytest.approx(expected, rel=1e-5)


def test_a_state_elsewhere_is_cut_into_shares_that_hold_every_weight_once() -> None:
    weights = [nn.Parameter(torch.zeros(n)) for n in (5, 1, 900, 3, 3, 0, 40)]
    found = list(shares(weights, 8 * 100))
    assert [k for share in found for k in share] == list(range(len(weights)))
    for share in found:
        assert len(share) == 1 or sum(8 * weights[k].numel() for k in share) <= 800


def test_no_room_for_a_state_elsewhere_is_said_before_a_step(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_systems, "in_memory", lambda _folder: False)
    with pytest.raises(DiskFull, match="optimizer"):
        AdamW([nn.Parameter(torch.zeros(10_000_000))], 1e-3, 0.0, elsewhere=small_disk)
    assert not list(small_disk.iterdir())


def test_a_state_elsewhere_never_lies_in_memory(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert file_systems.in_memory(small_disk)
    assert not file_systems.in_memory(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert file_systems.on_disk(tmp_path) == file_systems.on_disk(small_disk) == tmp_path
    weights = [nn.Parameter(torch.zeros(100_000))]
    free = os.statvfs(small_disk).f_bfree
    first = AdamW(weights, 1e-3, 0.0, elsewhere=small_disk)
    weights[0].grad = torch.ones_like(weights[0])
    first.step()
    assert os.statvfs(small_disk).f_bfree == free
    monkeypatch.setattr(file_systems, "in_memory", lambda _folder: True)
    with pytest.raises(UsageError, match="in memory"):
        AdamW(weights, 1e-3, 0.0, elsewhere=small_disk)


@pytest.mark.parametrize("make", [
    lambda: UNet(4, 3, UNetConfig(width=16, depth=3)),
    lambda: ResidualNet(4, 3, ResidualConfig()),
    lambda: Autoencoder(4, 1, AutoencoderConfig()),
], ids=["unet", "residual", "autoencoder"])  # fmt: skip
def test_held_and_mapped_weights_score_alike_to_the_rounding_that_is_said(
    make: Callable[[], nn.Module],
) -> None:
    torch.manual_seed(0)
    model = make()
    for _step in range(5):
        model(torch.randn(4, 4, 64, 64) * 3 + 1)
    for norm in model.modules():  # as odd as training may leave them
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, -2, 2)
            nn.init.normal_(norm.bias)
            assert norm.running_var is not None
            norm.running_var.mul_(torch.rand_like(norm.running_var) * 2 + 0.01)
    x, model = torch.randn(4, 4, 64, 64) * 3 + 1, model.eval()
    with torch.no_grad():
        mapped, held = model(x), folded(model)(x)
        assert not torch.equal(held, mapped)
        assert float((held - mapped).abs().max()) <= Weights.TOLERANCE * float(mapped.abs().max())


_CHILD = """
import json, sys, torch
from caudal.memory.meters import PeakMeter, charged_bytes
from caudal.runs.machine import settle
settle()
torch.set_num_threads(1)
from caudal.models.unet import UNet, UNetConfig
from caudal.runs.assemble import make_thrifty
model = UNet(3, 2, UNetConfig(width=16, depth=3, stem=1)).to(memory_format=torch.channels_last)
for position in sys.argv[4:]:  # where they stood before
    make_thrifty(model, *map(int, position))
make_thrifty(model, int(sys.argv[1]), int(sys.argv[2]))
x = torch.randn(int(sys.argv[3]), 3, 160, 160)
meter, before = PeakMeter(), charged_bytes()
for _ in range(2):
    model(x).square().mean().backward()
print(json.dumps(meter.peak() - before))
"""


_STATE_CHILD = """
import json, sys, tempfile, torch
from pathlib import Path
from caudal.memory.meters import PeakMeter, charged_bytes
from caudal.runs.machine import settle
settle()
from caudal.training.adamw import AdamW
from caudal.training.state_elsewhere import shares
weights = [torch.nn.Parameter(torch.zeros(1_000_000)) for _ in range(24)]
for weight in weights:
    weight.grad = torch.ones_like(weight)
meter, before = PeakMeter(), charged_bytes()
optimizer = AdamW(weights, 1e-3, 0.0, elsewhere=Path(sys.argv[1]) if len(sys.argv) > 1 else None)
for _ in range(2):
    optimizer.step()
print(json.dumps(meter.peak() - before))
"""


def measured(child: str, *words: object) -> int:
    """Bytes that something really takes, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", child, *map(str, words)], capture_output=True, text=True, check=True
    )
    return int(json.loads(done.stdout))


def test_levers_on_a_step_really_lower_its_peak() -> None:
    whole, half = measured(_CHILD, 0, 0, 8), measured(_CHILD, 0, 0, 4)
    given_back = measured(_CHILD, 1, 0, 8)
    finest, all_levels = measured(_CHILD, 1, 1, 8), measured(_CHILD, 1, 4, 8)
    assert half < 0.7 * whole
    assert given_back < 0.85 * whole
    assert finest < 0.98 * given_back
    assert all_levels < 0.95 * given_back


@pytest.mark.slow
def test_levers_take_what_they_take_wherever_they_stood_before() -> None:
    """A probe that begins with the least goes through them backwards."""
    given_back, kept_again = measured(_CHILD, 1, 0, 8), measured(_CHILD, 0, 0, 8, "14", "12", "10")
    assert kept_again > 1.15 * given_back
    finest, after_more = measured(_CHILD, 1, 1, 8), measured(_CHILD, 1, 1, 8, "14", "00")
    assert after_more == pytest.approx(finest, rel=0.05)


def test_a_state_elsewhere_is_not_charged(tmp_path: Path) -> None:
    state_bytes = 24 * 8_000_000
    here, elsewhere = measured(_STATE_CHILD), measured(_STATE_CHILD, tmp_path)
    assert here >= state_bytes
    assert elsewhere < 0.15 * state_bytes


_STEPS_CHILD = """
import json, sys, torch
from caudal.memory.meters import PeakMeter, charged_bytes
from caudal.runs.machine import settle
settle()
torch.set_num_threads(1)
from types import SimpleNamespace
from caudal.models.unet import UNet, UNetConfig
from caudal.tasks import TASKS
from caudal.training import step
from caudal.training.adamw import AdamW
from caudal.training.precision import choose
step.FIRST_PARTS = int(sys.argv[1])
model = UNet(3, 2, UNetConfig(width=16, depth=3, stem=1)).to(memory_format=torch.channels_last)
task = SimpleNamespace(loss=lambda scores, y: scores.square().mean((1, 2, 3)))
x = torch.randn(8, 3, 160, 160).to(memory_format=torch.channels_last)
stepper = step.Stepper(
    model, task, AdamW(model.parameters(), 1e-3, 0.0), torch.amp.GradScaler("cpu", enabled=False),
    choose("cpu", "fp32"), lambda batch, part: (x[part], None), 8, 1.0,
)
meter, before = PeakMeter(), charged_bytes()
for _ in range(5):
    stepper.run(SimpleNamespace(size=8, stall_seconds=0.0), 1e-3)
print(json.dumps(meter.peak() - before))
"""


def test_what_kernels_keep_of_their_first_calls_does_not_cut_up_the_heap() -> None:
    among, apart = measured(_STEPS_CHILD, 0), measured(_STEPS_CHILD, 2)
    assert apart < 0.92 * among


_HOLES = """
import json, sys
import numpy as np
from caudal.memory import allocator
from caudal.memory.meters import charged_bytes

BLOCK = 8 * 2**20
allocator.settle()
held, pins = [], []
for _ in range(16):
    held.append(np.ones(BLOCK, np.uint8))
    pins.append(np.ones(2**16, np.uint8))  # what keeps a heap from shrinking
places = [block.ctypes.data for block in held]
del held

def again():
    return [np.ones(BLOCK // 2, np.uint8) for _ in range(16)]
"""

_SERVER_CHILD = """
import json, sys
import numpy as np
from caudal.memory import allocator
from caudal.memory.meters import charged_bytes

allocator.settle()
if sys.argv[1] == "server":
    allocator.let_go()
before = charged_bytes()
held = [np.ones(2**19, np.uint8) for _ in range(64)]
del held
print(json.dumps(charged_bytes() - before))
"""


def test_a_server_keeps_nothing_of_what_was_large_for_a_moment() -> None:
    """A run does: its next step asks for the same again."""
    kept, let_go = (measured(_SERVER_CHILD, way) for way in ("run", "server"))
    assert kept > 30 * 2**20
    assert let_go < 2 * 2**20


_THREAD_CHILD = """
import json, sys, threading
import numpy as np
from caudal.memory import allocator
from caudal.memory.meters import charged_bytes

allocator.settle()
if sys.argv[1] == "beside another":
    stop = threading.Event()
    threading.Thread(target=stop.wait, daemon=True).start()  # it has an arena too

def look():
    held = [np.ones(2**18, np.uint8) for _ in range(128)]

before = charged_bytes()
looks = threading.Thread(target=look)
looks.start()
looks.join()
if sys.argv[2] == "trimmed":
    allocator.trim()
print(json.dumps(charged_bytes() - before))
"""


@pytest.mark.parametrize("way", ["alone", "beside another"])
def test_what_threads_freed_is_given_back_between_two_phases(way: str) -> None:
    assert measured(_THREAD_CHILD, way, "kept") > 25 * 2**20, "a run asks for the same again"
    assert measured(_THREAD_CHILD, way, "trimmed") < 2 * 2**20


_GIVEN_BACK_CHILD = (
    _HOLES
    + """
if sys.argv[1] == "given back":
    allocator.give_back_at_once()
before = charged_bytes()
again()
print(json.dumps(charged_bytes() - before if sys.argv[1] == "given back" else before))
"""
)


def test_what_is_given_back_at_once_is_so_from_the_middle_of_a_heap_too() -> None:
    assert measured(_GIVEN_BACK_CHILD, "kept") > 128 * 2**20, "there is something to give back"
    assert measured(_GIVEN_BACK_CHILD, "given back") < 2**20


_FRESH_CHILD = (
    _HOLES
    + """
def among():
    return sum(min(places) <= block.ctypes.data <= max(places) for block in again())

with allocator.fresh():
    inside = among()
print(json.dumps(100 * inside + among()))
"""
)


def test_what_is_measured_in_a_fresh_heap_lies_in_nothing_that_was_freed_before() -> None:
    inside, afterwards = divmod(measured(_FRESH_CHILD), 100)
    assert (inside, afterwards) == (0, 16)

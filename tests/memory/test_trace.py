"""A trace counts what a computation keeps alive, and takes no memory."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from torch import nn

from caudal.memory.meters import charged_bytes
from caudal.memory.trace import peak_bytes
from caudal.models.unet import UNet, UNetConfig

MIB = 2**20


def test_temporaries_count_while_they_live() -> None:
    x = torch.empty(MIB, dtype=torch.uint8, device="meta")

    def run() -> None:
        a = x + 1
        b = a + 1
        del a
        c = b + 1
        del b, c

    assert peak_bytes(run, [x]) == 2 * MIB


def test_views_and_changes_in_place_cost_nothing() -> None:
    x = torch.empty(4, MIB, device="meta")
    assert peak_bytes(lambda: x[1].view(2, -1).add_(1), [x]) == 0


@pytest.mark.parametrize("batch", [1, 4, 16])
def test_a_training_step_keeps_its_activations_and_gradients(batch: int) -> None:
    side, width = 64, 8
    with torch.device("meta"):
        model = nn.Sequential(*(nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(4)))
        x = torch.empty(batch, width, side, side)

    def step() -> None:
        model(x).sum().backward()

    plane = batch * width * side * side * 4
    weights = sum(p.numel() * 4 for p in model.parameters())
    found = peak_bytes(step, [*model.parameters(), x])
    assert 4 * plane <= found <= 6 * plane + 2 * weights


def test_a_model_larger_than_this_machine_is_traced_without_memory() -> None:
    before = charged_bytes()
    with torch.device("meta"):
        model = nn.Linear(2**20, 2**20)
        x = torch.empty(2**12, 2**20)
    assert peak_bytes(lambda: model(x), [*model.parameters(), x]) == 2**12 * 2**20 * 4
    assert charged_bytes() - before < 16 * MIB


_CHILD = """
import json, sys
from caudal.memory.trace import without_compiler
from tests.memory.test_trace import step_of_a_network
with without_compiler():
    found = step_of_a_network()
print(json.dumps([found, "torch._dynamo" in sys.modules]))
"""


def step_of_a_network() -> int:
    model, x = UNet(3, 2, UNetConfig(width=4, depth=2)).to("meta"), torch.empty(2, 3, 64, 64, device="meta")
    held = [*model.parameters(), *model.buffers(), x]
    return peak_bytes(lambda: model(x).square().mean().backward(), held)


def test_a_trace_needs_no_compiler_and_says_the_same_without() -> None:
    done = subprocess.run([sys.executable, "-c", _CHILD], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [step_of_a_network(), False]

"""A model whose shapes alone are wanted holds nothing, loads nothing, and has the shapes that it has."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from torch import nn

from caudal.models import weights
from caudal.models.unfilled import is_unfilled, unfilled

KINDS = [
    ("unet", 3, 2, {"width": 8}),
    ("autoencoder", 5, 1, {}),
    ("residual", 3, 4, {"depth": 2}),
    ("recurrent", 6, 1, {}),
    ("encoder", 6, 2, {}),
    ("graph_conv", 9, 1, {}),
]


@pytest.mark.parametrize(("name", "bands", "outputs", "config"), KINDS)
def test_shapes_are_those_of_a_model_that_is_filled(
    name: str, bands: int, outputs: int, config: dict[str, int]
) -> None:
    with unfilled():
        shapes = weights.build(name, bands, outputs, config).state_dict()
    filled = weights.build(name, bands, outputs, config).state_dict()
    assert {k: (v.shape, v.dtype) for k, v in shapes.items()} == {
        k: (v.shape, v.dtype) for k, v in filled.items()
    }


def test_outside_weights_are_filled_as_ever() -> None:
    torch.manual_seed(0)
    expected = nn.Linear(4, 4).weight
    with unfilled():
        assert is_unfilled()
        nn.Linear(4, 4)
    torch.manual_seed(0)
    assert torch.equal(nn.Linear(4, 4).weight, expected)
    assert not is_unfilled()


def test_no_random_number_is_drawn() -> None:
    before = torch.get_rng_state()
    with unfilled():
        weights.build("unet", 3, 2, {})
    assert torch.equal(torch.get_rng_state(), before)


def test_hundreds_of_megabytes_of_weights_are_not_held_and_torch_loads_nothing_for_them() -> None:
    child = """
import json, sys
from caudal.memory.meters import charged_bytes
from caudal.models import weights
from caudal.models.unfilled import unfilled
weights.MODELS.get("unet")
before, modules = charged_bytes(), set(sys.modules)
with unfilled():
    model = weights.build("unet", 3, 2, {"width": 128, "depth": 4})
size = sum(w.numel() * w.element_size() for w in model.parameters())
print(json.dumps([size, charged_bytes() - before, sorted(set(sys.modules) - modules)]))
"""
    done = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, check=True)
    size, held, loaded = json.loads(done.stdout)
    assert size > 400 * 2**20
    assert held < 16 * 2**20
    assert not [name for name in loaded if name.startswith(("torch._dynamo", "sympy"))]

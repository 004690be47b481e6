"""Loading holds the weights once, in the dtype that is asked for; counted by a real memory group."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
import torch
from tests.cgroups import run_in_group

from caudal.core.units import MIB
from caudal.models import weights
from caudal.models.unet import UNet, UNetConfig

_CHILD = """
import sys, torch
from pathlib import Path
from caudal.models import weights
path, name = Path(sys.argv[1]), sys.argv[2]
if name != "none":
    dtype = getattr(torch, name)
    model, _card = weights.load(path, dtype)
    total = sum(float(p.detach().double().sum()) for p in model.parameters() if p.numel() < 1e6)
    print(total, {p.dtype for p in model.parameters()})
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 280 MB."""
    config = {"width": 96, "depth": 4}
    model = UNet(3, 2, UNetConfig(**config))
    folder = tmp_path_factory.mktemp("large")
    card = weights.ModelCard(task="segmentation", architecture="unet", config=config, bands=3, outputs=2)
    weights.save(folder, model, card)
    return folder


def peak(folder: Path, dtype: str, limit: int) -> int:
    ended = run_in_group([sys.executable, "-c", _CHILD, str(folder), dtype], limit)
    assert ended.returncode == 0, ended.output
    assert ended.oom_kills == 0
    return ended.peak_charged


@pytest.mark.cgroup
@pytest.mark.parametrize(("dtype", "share"), [("float32", 0.0), ("bfloat16", 0.5)])
def test_loading_takes_the_target_and_one_tensor_beside_it(large: Path, dtype: str, share: float) -> None:
    size = (large / weights.WEIGHTS).stat().st_size
    assert size > 250 * MIB
    base = peak(large, "none", 2**31)
    room = round(share * size) + 64 * MIB
    # The limit is the law: with one more copy of anything the kernel would end it.
    assert peak(large, dtype, base + room) <= base + room


def test_loading_takes_hardly_longer_than_reading(large: Path) -> None:
    path = large / weights.WEIGHTS
    ratios = []
    for _round in range(5):
        began = time.perf_counter()
        with path.open("rb", buffering=0) as file:
            buffer = memoryview(bytearray(4 * MIB))
            while file.readinto(buffer):
                pass
        read = time.perf_counter() - began
        began = time.perf_counter()
        weights.load(large)
        ratios.append((time.perf_counter() - began) / read)
    assert sorted(ratios)[2] <= 1.2


def test_weights_are_the_same_bits_and_a_cast_is_torchs_own(tmp_path: Path) -> None:
    model = UNet(3, 2, UNetConfig(width=8, depth=2)).eval()
    card = weights.ModelCard(
        task="segmentation", architecture="unet", config={"width": 8, "depth": 2}, bands=3, outputs=2
    )
    weights.save(tmp_path, model, card)
    same, _card = weights.load(tmp_path)
    cast, _card = weights.load(tmp_path, torch.bfloat16)
    for name, value in model.state_dict().items():
        assert torch.equal(same.state_dict()[name], value)
        expected = value.bfloat16() if value.is_floating_point() else value
        assert torch.equal(cast.state_dict()[name], expected)
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(same(x), model(x))

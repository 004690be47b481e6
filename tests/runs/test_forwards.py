"""What inference of a model takes is measured, and never past what there is room for."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch

from caudal.core.units import MIB, Bytes
from caudal.models import weights
from caudal.models.unet import UNet, UNetConfig
from caudal.runs import forwards
from tests.cgroups import Ended, run_in_group

_LAYER = 60 * MIB  # of the fake model: whatever the side of what it infers
_PIXEL_BYTES = 1024


def _takes_memory(sides: list[int]) -> Any:
    def forward(x_NHWC: np.ndarray[Any, Any], _valid: None) -> None:
        sides.append(x_NHWC.shape[1])
        np.ones(_LAYER + _PIXEL_BYTES * x_NHWC.shape[1] * x_NHWC.shape[2], np.uint8)

    return forward


@pytest.mark.parametrize("mapped", [False, True])
def test_a_size_that_would_not_fit_is_not_tried(mapped: bool) -> None:
    sides: list[int] = []
    found = list(forwards.measure(_takes_memory(sides), 1, mapped=mapped, room=Bytes(120 * MIB)))
    assert sides == [96, 192], "320 px would take 160 MiB"
    for one in found:
        wanted = _LAYER + _PIXEL_BYTES * one.side_px**2
        assert 0.9 * wanted < one.ram < 1.1 * wanted


def test_one_that_passes_the_room_alone_is_the_last() -> None:
    sides: list[int] = []
    assert len(list(forwards.measure(_takes_memory(sides), 1, room=Bytes(50 * MIB)))) == 1
    assert sides == [96]


@pytest.mark.parametrize(("most_px", "measured"), [(64, [96, 192]), (256, [96, 192, 320])])
def test_no_more_is_tried_than_two_sizes_and_one_that_holds_all_that_is_meant(
    most_px: int, measured: list[int]
) -> None:
    sides: list[int] = []
    list(forwards.measure(_takes_memory(sides), 1, room=Bytes(10_000 * MIB), most_px=most_px))
    assert sides == measured


def _predicted(folder: Path, width: int, budget: int, *more: str) -> Ended:
    """How inference of a small image by a U-Net of that width ended, in a real group of the budget."""
    torch.manual_seed(0)
    config = {"width": width, "depth": 4}
    card = weights.ModelCard(task="segmentation", architecture="unet", config=config, bands=3, outputs=2)
    weights.save(folder / "model", UNet(3, 2, UNetConfig(**config)), card)
    with rasterio.open(
        folder / "image.tif", "w", driver="GTiff", height=64, width=64, count=3, dtype="uint8"
    ) as file:
        file.write(np.zeros((3, 64, 64), np.uint8))
    words = ["predict", folder / "model", folder / "image.tif", "-o", folder / "map.tif"]
    command = [sys.executable, "-m", "caudal", *map(str, words), "--ram", str(budget), *more]
    return run_in_group(command, budget, 120)


def test_a_model_whose_layers_pass_the_budget_is_refused_and_not_killed(tmp_path: Path) -> None:
    # The libraries take 170; its largest layer has 81 MiB of weights.
    ended = _predicted(tmp_path, 96, 270 * MIB)
    assert ended.returncode == 3, ended.output
    assert "its largest layer" in ended.output
    assert not (tmp_path / "map.tif").exists()


@pytest.mark.slow  # 740 MiB are written first; the row `kill_matrix` holds it of 1.5 GB
def test_a_model_whose_weights_pass_the_budget_infers_in_what_is_promised(tmp_path: Path) -> None:
    # 740 MiB of weights beside libraries of 170; its largest layer has 225.
    ended = _predicted(tmp_path, 160, 720 * MIB, "--json")
    assert (ended.returncode, ended.oom_kills) == (0, 0), ended.output
    said = json.loads(ended.output.splitlines()[-1])
    assert said["levers"]["weights"] == "mapped"
    assert 0.98 < said["predicted_bytes"]["ram"] / said["peak_bytes"]["ram"] < 1.1
    assert ended.peak_charged <= 720 * MIB

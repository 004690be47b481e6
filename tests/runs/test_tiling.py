"""How large tiles are, as plans say it and as scoring cuts them."""

from __future__ import annotations

import pytest

from caudal.core.units import Bytes
from caudal.memory.cost import Forward
from caudal.models.unet import UNet, UNetConfig
from caudal.runs.tiling import FORWARD_SIDES_PX, blended_step, validation_tiling


@pytest.mark.parametrize("side_px", FORWARD_SIDES_PX)
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_the_step_that_a_plan_names_is_that_of_the_tiles_that_are_scored(side_px: int, depth: int) -> None:
    model = UNet(3, 2, UNetConfig(width=2, depth=depth))
    measured = Forward(side_px=side_px, ram=Bytes(1), vram=Bytes(0), seconds=1.0)
    assert blended_step(side_px) == validation_tiling(model, [measured]).core_px

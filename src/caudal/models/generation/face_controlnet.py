"""A ControlNet that is told of faces instead of the prompt: the one part that diffusers does not have.

Everything else of its pass (picture of keypoints, pooled text, time) is the stock network's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from diffusers.models.controlnets.controlnet import ControlNetModel
from torch.nn import functional

_face_tokens: ContextVar[torch.Tensor | None] = ContextVar("face_tokens", default=None)
_region: ContextVar[torch.Tensor | None] = ContextVar("region", default=None)


@contextmanager
def conditioned_on(tokens_BTC: torch.Tensor, region_HW: torch.Tensor | None = None) -> Iterator[None]:
    """Within, every `FaceControlNet` of this thread attends to these tokens, (rows, tokens, width).

    Rows are those of the UNet's batch: with guidance, the ones without a face come first. `region_HW`, 0 to 1
    and as large as the picture, says where what it gives counts.
    """
    before, region_before = _face_tokens.set(tokens_BTC), _region.set(region_HW)
    try:
        yield
    finally:
        _face_tokens.reset(before)
        _region.reset(region_before)


class FaceControlNet(ControlNetModel):
    """The stock network; `conditioned_on` says what its cross-attention sees."""

    def forward(self, sample: torch.Tensor, timestep: Any, encoder_hidden_states: torch.Tensor,
                *args: Any, **kwargs: Any) -> Any:  # fmt: skip
        """As the stock network's, with the faces' tokens for the prompt's, and kept to the region."""
        tokens_BTC = _face_tokens.get()
        assert tokens_BTC is not None, "a face network outside of conditioned_on"
        # In guess mode the batch is its conditional half, which comes last.
        tokens_BTC = tokens_BTC[-sample.shape[0] :].to(sample)
        given = super().forward(sample, timestep, tokens_BTC, *args, **kwargs)
        region_HW = _region.get()
        if region_HW is None:
            return given
        down, mid = given[0], given[1]
        return [_within(one, region_HW) for one in down], _within(mid, region_HW)


def _within(residual_BCHW: torch.Tensor, region_HW: torch.Tensor) -> torch.Tensor:
    """A residual times the region, which is brought to its size."""
    small = functional.interpolate(region_HW[None, None], size=residual_BCHW.shape[-2:], mode="bilinear")
    return residual_BCHW * small.to(residual_BCHW)

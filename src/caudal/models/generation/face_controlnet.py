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

_face_tokens: ContextVar[torch.Tensor | None] = ContextVar("face_tokens", default=None)


@contextmanager
def conditioned_on(tokens_BTC: torch.Tensor) -> Iterator[None]:
    """Within, every `FaceControlNet` of this thread attends to these tokens, (rows, tokens, width).

    Rows are those of the UNet's batch: with guidance, the ones without a face come first.
    """
    before = _face_tokens.set(tokens_BTC)
    try:
        yield
    finally:
        _face_tokens.reset(before)


class FaceControlNet(ControlNetModel):
    """The stock network; `conditioned_on` says what its cross-attention sees."""

    def forward(self, sample: torch.Tensor, timestep: Any, encoder_hidden_states: torch.Tensor,
                *args: Any, **kwargs: Any) -> Any:  # fmt: skip
        """As the stock network's, with the prompt's tokens replaced by the faces'."""
        tokens_BTC = _face_tokens.get()
        assert tokens_BTC is not None, "a face network outside of conditioned_on"
        # In guess mode the batch is its conditional half, which comes last.
        tokens_BTC = tokens_BTC[-sample.shape[0] :].to(sample)
        return super().forward(sample, timestep, tokens_BTC, *args, **kwargs)

"""A block whose activations are not kept: they are computed again when the gradient comes back."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from caudal.models.norm import statistics_kept


def again(block: nn.Module, x_BCHW: torch.Tensor) -> torch.Tensor:
    """`block(x)`; the second time, on the way back, its running statistics stay as they are.

    The block may not draw random numbers: they would be others the second time.
    """
    y_BCHW: torch.Tensor = checkpoint(
        block, x_BCHW, use_reentrant=False, preserve_rng_state=False, context_fn=_contexts
    )
    return y_BCHW


def _contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), statistics_kept()

"""A block whose activations are not kept: they are computed again when the gradient comes back.

As `torch.utils.checkpoint`, whose first use loads 70 MB that such a run is short of.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from caudal.models.norm import statistics_kept


def again(block: nn.Module, x_BCHW: torch.Tensor) -> torch.Tensor:
    """`block(x)`; the second time, on the way back, its running statistics stay as they are.

    The block may not draw random numbers: they would be others the second time.
    """
    weights = [weight for weight in block.parameters() if weight.requires_grad]
    y_BCHW: torch.Tensor = _Again.apply(block, x_BCHW, *weights)  # type: ignore[no-untyped-call]
    return y_BCHW


class _Again(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, block: nn.Module, x_BCHW: torch.Tensor, *weights: torch.Tensor) -> Any:
        device = x_BCHW.device.type
        ctx.block, ctx.weights, ctx.device = block, weights, device
        ctx.autocast = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
        ctx.save_for_backward(x_BCHW)
        return block(x_BCHW)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        (x_BCHW,) = ctx.saved_tensors
        x_BCHW = x_BCHW.detach().requires_grad_(ctx.needs_input_grad[1])
        enabled, dtype = ctx.autocast
        with torch.enable_grad(), statistics_kept(), torch.autocast(ctx.device, dtype, enabled=enabled):
            y_BCHW = ctx.block(x_BCHW)
        with torch.enable_grad():
            # Its gradient by y is `gradient`, bit for bit; given as it is, torch loads 34 MB to check it.
            weighted = (y_BCHW * gradient).sum()
        wanted = [x_BCHW, *ctx.weights] if x_BCHW.requires_grad else list(ctx.weights)
        found = torch.autograd.grad(weighted, wanted)
        return (None, *found) if x_BCHW.requires_grad else (None, None, *found)

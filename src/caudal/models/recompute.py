"""Blocks whose activations are not kept: they are computed again when the gradient comes back.

As `torch.utils.checkpoint`, whose first use loads 70 MB that such a run is short of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from torch import nn

from caudal.models.norm import statistics_kept


def again(run: Callable[..., Any], *inputs: Any, weights: Iterable[torch.Tensor] | None = None) -> Any:
    """`run(*inputs)`; the second time, on the way back, its running statistics stay as they are.

    `run` is a module, or a function that depends on `weights` beside its inputs. It gives a tensor, or a
    tuple of tensors and other things, and may not draw random numbers: they would be others the second time.
    Of what is inside lists and the like in `inputs` no gradient is known.
    """
    if weights is None:
        assert isinstance(run, nn.Module)
        weights = run.parameters()
    learned = [weight for weight in weights if weight.requires_grad]
    # torch says nothing of the types of `apply`.
    return _Again.apply(run, len(inputs), *inputs, *learned)  # type: ignore[no-untyped-call]


@contextmanager
def recomputed(blocks: Sequence[nn.Module]) -> Iterator[None]:
    """Inside the `with`, calling one of `blocks` runs it through `again`: for networks that others wrote.

    A block whose arguments hide tensors where `again` does not see them runs as it is.
    """
    for block in blocks:
        block.forward = _Redone(block)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward  # its class's is seen again


class _Redone:
    """The forward pass of a block, computed again, whether its tensors come by place or by name."""

    def __init__(self, block: nn.Module) -> None:
        self._block = block
        self._plain = MethodType(type(block).forward, block)

    def __call__(self, *given: Any, **named: Any) -> Any:
        if any(_hides_tensors(value) for value in (*given, *named.values())):
            return self._plain(*given, **named)
        count, names = len(given), tuple(named)

        def run(*inputs: Any) -> Any:
            return self._plain(*inputs[:count], **dict(zip(names, inputs[count:], strict=True)))

        return again(run, *given, *named.values(), weights=self._block.parameters())


def _hides_tensors(value: Any) -> bool:
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, tuple | list):
        return any(isinstance(one, torch.Tensor) or _hides_tensors(one) for one in value)
    return False


class _Again(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, run: Callable[..., Any], count: int, *rest: Any) -> Any:
        inputs, weights = rest[:count], rest[count:]
        tensors = [x for x in inputs if isinstance(x, torch.Tensor)]
        device = next(x.device.type for x in tensors)
        ctx.run, ctx.weights, ctx.device = run, weights, device
        ctx.others = [None if isinstance(x, torch.Tensor) else (x,) for x in inputs]
        ctx.autocast = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)
        # Attention and LSTM take other kernels, with other last bits, where no gradient is wanted: so one is
        # wanted, and what was kept for it goes at once.
        with torch.enable_grad():
            found = run(*_afresh(ctx, tensors))
        if isinstance(found, tuple):
            return tuple(y.detach() if isinstance(y, torch.Tensor) else y for y in found)
        return found.detach()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor | None) -> Any:
        inputs = _afresh(ctx, ctx.saved_tensors)
        enabled, dtype = ctx.autocast
        with torch.enable_grad(), statistics_kept(), torch.autocast(ctx.device, dtype, enabled=enabled):
            found = ctx.run(*inputs)
        outputs = found if isinstance(found, tuple) else (found,)
        pairs = [(y, g) for y, g in zip(outputs, gradients, strict=True) if g is not None]
        with torch.enable_grad():
            # Its gradient by y is `g`, bit for bit; given as it is, torch loads 34 MB to check it.
            weighted = sum(((y * g).sum() for y, g in pairs[1:]), (pairs[0][0] * pairs[0][1]).sum())
        del found, outputs, pairs
        wanted = ctx.needs_input_grad[2 : 2 + len(inputs)]
        learned = [x for x, asked in zip(inputs, wanted, strict=True) if asked] + list(ctx.weights)
        slopes = iter(torch.autograd.grad(weighted, learned, allow_unused=True))
        by_input = [next(slopes) if asked else None for asked in wanted]
        return (None, None, *by_input, *slopes)


def _afresh(ctx: Any, tensors: Iterable[torch.Tensor]) -> list[Any]:
    """The inputs of a block as the beginnings of a graph of its own."""
    rest = iter(tensors)
    return [
        next(rest).detach().requires_grad_(asked) if other is None else other[0]
        for other, asked in zip(ctx.others, ctx.needs_input_grad[2:], strict=False)
    ]

"""Models of which only the shapes are wanted: their weights are asked for and not written.

Memory that was never written is not held. Torch's own way, the meta device, loads 69 MB of Python the first
time that a weight is initialized on it, which a run would pay for at its end and an inference at its start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch import nn
from torch.overrides import TorchFunctionMode

_NOW: ContextVar[bool] = ContextVar("unfilled", default=False)


@contextmanager
def unfilled() -> Iterator[None]:
    """Inside, nothing is written into the weights of a model that is built: they hold whatever was there."""
    token = _NOW.set(True)
    try:
        with _Unwritten():
            yield
    finally:
        _NOW.reset(token)


def is_unfilled() -> bool:
    """Whether the weights of a model that is built now are not wanted."""
    return _NOW.get()


class _Unwritten(TorchFunctionMode):
    """Passes over everything that initializes a weight in place."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        first = args[0] if args else kwargs.get("tensor")
        in_place = name.endswith("_") and not name.startswith("_") and name != "requires_grad_"
        if in_place and isinstance(first, nn.Parameter):  # buffers may be in no file, and are made as ever
            return first
        return func(*args, **kwargs)

"""The bytes of the tensors that a computation keeps alive at once, found without having them.

On the `meta` device torch works out shapes and dtypes and computes nothing, so a step of a model of any size
is traced in a moment. What kernels take beside their tensors is not seen, nor what the allocator keeps:
a trace is a lower bound to refuse by, and the shape of a curve that a probe calibrates.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from caudal.core.units import Bytes


class _Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the storages that operations make, until the last tensor over each is gone."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._known: dict[int, int] = {}
        self.now = self.peak = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        for one in tree_leaves(result):
            if isinstance(one, torch.Tensor):
                self._meet(one.untyped_storage())
        return result

    def know(self, tensors: list[torch.Tensor]) -> None:
        """Leave out what was there before."""
        for one in tensors:
            self._known[one.untyped_storage()._cdata] = 0

    def _meet(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._known:
            return
        self._known[key] = nbytes = storage.nbytes()
        self.now += nbytes
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, key)

    def _gone(self, key: int) -> None:
        self.now -= self._known.pop(key, 0)


@contextmanager
def without_compiler() -> Iterator[None]:
    """Let torch's rules for shapes run without its compiler: for a process that traces and then ends.

    They load it, 70 MB and the most of the time of a trace, only to be marked as none of its business. What
    is marked inside the `with` is not marked for a compiler that comes later.
    """
    name = "torch._dynamo"
    if name in sys.modules:
        yield
        return
    absent = ModuleType(name)
    absent.__dict__["disable"] = lambda function, *_rest, **_named: function
    sys.modules[name] = torch._dynamo = absent
    try:
        yield
    finally:
        del sys.modules[name], torch._dynamo


def peak_bytes(run: Callable[[], object], held: list[torch.Tensor]) -> Bytes:
    """The most bytes of tensors that `run` has alive at once, beside those of `held`."""
    alive = _Alive()
    alive.know(held)
    with alive:
        run()
    return Bytes(alive.peak)

"""Tensors that were computed once and are wanted again, up to a number of bytes; what was used least goes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable

import torch

Tensors = tuple[torch.Tensor, ...]


class TensorCache:
    """Tuples of tensors by key, in host memory, `most_bytes` at most. `hits` counts what was spared."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.hits = 0
        self._kept: OrderedDict[Hashable, Tensors] = OrderedDict()

    @property
    def bytes(self) -> int:
        """What is held."""
        return sum(map(_size, self._kept.values()))

    def get(self, key: Hashable, compute: Callable[[], Tensors]) -> Tensors:
        """What is kept under `key`, or else what `compute` gives, which is kept from now on."""
        if key in self._kept:
            self.hits += 1
            self._kept.move_to_end(key)
            return self._kept[key]
        values = tuple(value.detach().to("cpu") for value in compute())
        self._kept[key] = values
        while self.bytes > self.most_bytes and len(self._kept) > 1:
            self._kept.popitem(last=False)
        return values

    def __contains__(self, key: Hashable) -> bool:
        return key in self._kept


def _size(values: Tensors) -> int:
    return sum(value.numel() * value.element_size() for value in values)

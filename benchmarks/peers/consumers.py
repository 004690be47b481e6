"""What takes the batches: nothing, a reader of every byte, or the training of a small model.

It loads no data. Every loader gets the same consumer, in the loader's process, as in real training.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

Consume = Callable[[Any], None]
WIDTH = 32


def imports(name: str) -> tuple[str, ...]:
    """What the consumer needs, to be loaded before anything is measured."""
    return ("torch",) if name == "train" else ()


def make(name: str, columns: Callable[[Any], dict[str, Any]], arrays: Callable[[Any], list[Any]]) -> Consume:
    """The consumer `name`: none, read or train."""
    if name == "none":
        return lambda _batch: None
    if name == "read":
        return partial(_read, arrays)
    assert name == "train", name
    return Trainer(columns)


def _read(arrays: Callable[[Any], list[Any]], batch: Any) -> None:
    for array in arrays(batch):
        touch(np.asarray(array))


def touch(array: np.ndarray) -> int:
    """Read every byte once, at the speed of memory."""
    if not array.flags.c_contiguous or array.nbytes % 8:
        return int(array.view(array.dtype).sum(dtype=np.float64))
    return int(np.bitwise_xor.reduce(array.reshape(-1).view(np.uint64))) if array.size else 0


class Trainer:
    """Steps of a small network on `x`, with one compute thread: the rest of the processor feeds it.

    Images (B, H, W, bands) or (B, bands, H, W) go through two convolutions, ragged rows through one layer.
    """

    def __init__(self, columns: Callable[[Any], dict[str, Any]]) -> None:
        import torch

        torch.set_num_threads(1)
        torch.manual_seed(0)
        self._columns, self._torch = columns, torch
        self._model: Any = None

    def __call__(self, batch: Any) -> None:
        """One step of the optimizer."""
        torch = self._torch
        column = self._columns(batch)["x"]
        x = (
            torch.cat([torch.as_tensor(v) for v in column])
            if isinstance(column, list)
            else self._images(column)
        )
        x = x.to(torch.float32)
        if self._model is None:
            self._model = self._network(x.shape[1], x.ndim == 4)
            self._optimizer = torch.optim.SGD(self._model.parameters(), lr=1e-6)
        loss = self._model(x).square().mean()
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()

    def _images(self, column: Any) -> Any:
        x = self._torch.as_tensor(column)
        return x.movedim(-1, 1) if x.ndim == 4 and x.shape[-1] < x.shape[1] else x

    def _network(self, inputs: int, image: bool) -> Any:
        nn = self._torch.nn
        if not image:
            return nn.Sequential(nn.Linear(inputs, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 1))
        return nn.Sequential(
            nn.Conv2d(inputs, WIDTH, 3, 2, 1), nn.ReLU(), nn.Conv2d(WIDTH, 2 * WIDTH, 3, 2, 1), nn.ReLU(),
            nn.Conv2d(2 * WIDTH, 1, 1),
        )  # fmt: skip

"""Batch normalization whose statistics do not depend on the micro-batch.

Legend: B batch, G group, C channel, H row, W column.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import nn

_thread = threading.local()  # the gradient of a device comes back in a thread of its own


class GroupedBatchNorm2d(nn.BatchNorm2d):
    """Batch normalization over groups of `group` samples, in their order.

    A batch of 16 in groups of 4 gives the same activations and the same running statistics whether it
    goes through at once or in micro-batches of 4 or 8. Small groups also regularize (“ghost batch
    normalization”, Hoffer, Hubara and Soudry, "Train longer, generalize better", NeurIPS 2017). At
    inference it is an affine map, so a tile's output does not depend on what else is in the tile.

    A batch that is no multiple of `group` ends in a smaller group.
    """

    def __init__(self, channels: int, group: int) -> None:
        super().__init__(channels)
        self.group = group

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Normalize; shape and dtype stay."""
        if not self.training:
            return super().forward(x_BCHW)
        assert self.momentum is not None
        keeps = getattr(_thread, "keeps_statistics", False)
        mean, variance = (None, None) if keeps else (self.running_mean, self.running_var)
        parts = [
            F.batch_norm(
                part,
                mean,
                variance,
                self.weight,
                self.bias,
                True,
                self.momentum,
                self.eps,
            )
            for part in torch.split(x_BCHW, self.group)
        ]
        # With one group, as on a tight budget, there is nothing to copy together.
        return parts[0] if len(parts) == 1 else torch.cat(parts)


@contextmanager
def statistics_kept() -> Iterator[None]:
    """Leave running statistics as they are inside the `with`, in this thread: all there has run before."""
    _thread.keeps_statistics = True
    try:
        yield
    finally:
        _thread.keeps_statistics = False

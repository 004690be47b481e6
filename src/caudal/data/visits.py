"""Which chunks a rank visits, and for which of its samples: the order, cut to batches and dealt out to ranks.

The order and the batches are the same for every number of ranks; a rank takes every `world`-th sample of
each batch, and visits a chunk only if one of these is cut from it. Nothing is read here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from caudal.core.geometry import Window
from caudal.data.chunks import Cutter
from caudal.data.order import EpochOrder, order
from caudal.data.steps import Rank

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Visit:
    """Turn `number` of an epoch. `samples` (patches,) are its patches' numbers in the run, -1: not needed."""

    laid_out: EpochOrder
    number: int
    samples: Ints

    @property
    def image(self) -> int:
        """The image that is visited."""
        return int(self.laid_out.chunks.image[self.number])

    @property
    def window(self) -> Window:
        """The chunk of it."""
        return self.laid_out.chunks.window(self.number)

    @property
    def needed(self) -> int:
        """How many of its patches are needed."""
        return int((self.samples >= 0).sum())


@dataclass(frozen=True)
class Visits:
    """The visits of one rank, for batches of `batch` samples of all ranks together."""

    cutter: Cutter
    open_chunks: int
    batch: int
    rank: Rank

    def samples_of(self, batch: int) -> Ints:
        """The numbers in the run of this rank's samples of a batch; as many of each."""
        return np.arange(batch * self.batch + self.rank.rank, (batch + 1) * self.batch, self.rank.world)

    def between(self, start: int, stop: int) -> Iterator[Visit]:
        """The visits that the batches `start` … `stop` - 1 need, in the order in which they are needed."""
        per_epoch = self.cutter.samples
        first, last = start * self.batch, stop * self.batch
        for epoch in range(first // per_epoch, -(-last // per_epoch)):
            laid_out = order(self.cutter, epoch, self.open_chunks)
            numbers = np.arange(len(laid_out)) + epoch * per_epoch
            own = numbers % self.batch % self.rank.world == self.rank.rank
            wanted = own & (numbers >= first) & (numbers < last)
            # Samples sorted by visit: one slice for each visit, patches in their own order.
            by_visit = np.lexsort((laid_out.patch, laid_out.visit))
            ends = np.cumsum(laid_out.chunks.patches)
            for number, (end, count) in enumerate(zip(ends, laid_out.chunks.patches, strict=True)):
                these = by_visit[end - count : end]
                if wanted[these].any():
                    yield Visit(laid_out, number, np.where(wanted[these], numbers[these], -1))

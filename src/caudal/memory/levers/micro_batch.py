"""The part of a batch that goes through the model at once; the optimizer step stays the same."""

from __future__ import annotations

from typing import ClassVar


class MicroBatch:
    """Divisors of the batch, largest first.

    Exact down to `group`: the model normalizes over groups of that many samples, so a micro-batch that
    holds whole groups sees the same statistics. Below it the statistics are of fewer samples.
    """

    name: ClassVar[str] = "micro_batch"

    def __init__(self, batch: int, group: int) -> None:
        self.batch = batch
        self.group = min(group, batch)
        self.exact = True

    def positions(self) -> list[int]:
        """Micro-batches of whole groups first, then the smaller ones."""
        divisors = [size for size in range(self.batch, 0, -1) if self.batch % size == 0]
        return [d for d in divisors if d % self.group == 0] + [d for d in divisors if d < self.group]

    def is_exact(self, size: int) -> bool:
        """Whether a micro-batch of `size` gives the gradient of the whole batch."""
        return size % self.group == 0

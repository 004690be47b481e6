"""A pass over data, whoever makes its batches: the contract of streams, stages and those who run them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from caudal.data.batches import Batch
from caudal.data.sample_stream import Meter
from caudal.memory.arena import Arena


class Pass(Protocol):
    """Batches from a position on. `epoch` and `position` are where the step after the last batch begins."""

    epoch: int
    position: int

    @property
    def meter(self) -> Meter:
        """What happened so far."""
        ...

    @property
    def arena(self) -> Arena:
        """Where its batches lie."""
        ...

    def __iter__(self) -> Iterator[Batch]: ...

    def close(self) -> None:
        """Stop its threads and give its memory back, from any thread; whoever waits for a batch gets none."""
        ...

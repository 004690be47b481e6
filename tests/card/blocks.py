"""A model of torch's caching allocator: blocks in segments that it keeps when they are freed.

Sizes and rules are those of `c10/cuda/CUDACachingAllocator.cpp` as it comes: blocks of 512 bytes; requests
up to 1 MiB from segments of 2 MiB, below 10 MiB from segments of 20, larger ones from a segment of their own;
the best fit is taken and split; free neighbours are joined; at the limit all wholly free segments go back
before a request is refused.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import torch

MIB = 2**20
BLOCK, SMALL, LEAST_LARGE = 512, MIB, 10 * MIB
SMALL_SEGMENT, LARGE_SEGMENT, ROUND = 2 * MIB, 20 * MIB, 2 * MIB


@dataclass(eq=False)
class Block:
    """A piece of a segment."""

    segment: Segment
    size: int
    free: bool = True


@dataclass(eq=False)
class Segment:
    """What was taken from the card at once; `blocks` in the order in which they lie."""

    size: int
    small: bool
    blocks: list[Block] = field(default_factory=list)


def rounded(nbytes: int) -> int:
    """What a tensor of so many bytes takes."""
    return max(BLOCK, -(-nbytes // BLOCK) * BLOCK)


class Blocks:
    """A card of `total` bytes: this process's context takes `context`, and other processes `others`.

    `limit` is the share of the total that this process may take, as torch is told it.
    """

    def __init__(self, total: int, context: int = 0, others: int = 0) -> None:
        self.total, self.context, self.others, self.limit = total, context, others, 1.0
        self.segments: list[Segment] = []
        self.allocated = self.reserved = self.most_allocated = self.most_reserved = 0
        self.refused = 0
        self._lock = threading.RLock()

    @property
    def left(self) -> int:
        """Bytes on the card for anyone."""
        return max(0, self.total - self.context - self.others - self.reserved)

    def take(self, nbytes: int) -> Block:
        """A block for a tensor.

        Raises:
            torch.OutOfMemoryError: at the limit, or where others hold the rest of the card.
        """
        with self._lock:
            size = rounded(nbytes)
            block = self._fitting(size) or self._new(size)
            self._split(block, size)
            block.free = False
            self.allocated += block.size
            self.most_allocated = max(self.most_allocated, self.allocated)
            return block

    def give_back(self, block: Block) -> None:
        """Free a block; its bytes stay reserved."""
        with self._lock:
            self.allocated -= block.size
            block.free = True
            row = block.segment.blocks
            for other in (row.index(block) + 1, row.index(block) - 1):
                if 0 <= other < len(row) and row[other].free:
                    block.size += row.pop(other).size

    def empty(self) -> None:
        """Give wholly free segments back to the card."""
        with self._lock:
            kept = [s for s in self.segments if len(s.blocks) > 1 or not s.blocks[0].free]
            self.reserved = sum(s.size for s in kept)
            self.segments = kept

    def reset_peaks(self) -> None:
        """Begin new high-water marks."""
        with self._lock:
            self.most_allocated, self.most_reserved = self.allocated, self.reserved

    def _fitting(self, size: int) -> Block | None:
        small = size <= SMALL
        free = (
            block
            for segment in self.segments
            if segment.small == small
            for block in segment.blocks
            if block.free and block.size >= size
        )
        return min(free, key=lambda block: block.size, default=None)

    def _new(self, size: int) -> Block:
        small = size <= SMALL
        alone = -(-size // ROUND) * ROUND
        wanted = SMALL_SEGMENT if small else LARGE_SEGMENT if size < LEAST_LARGE else alone
        if not self._room(wanted):
            self.empty()
        if not self._room(wanted):
            self.refused += 1
            raise torch.OutOfMemoryError(
                f"CUDA out of memory. Tried to allocate {size / MIB:.2f} MiB. GPU 0 has a total capacity of "
                f"{self.total / MIB:.2f} MiB of which {self.left / MIB:.2f} MiB is free (a model of a card)."
            )
        segment = Segment(wanted, small)
        segment.blocks = [Block(segment, wanted)]
        self.segments.append(segment)
        self.reserved += wanted
        self.most_reserved = max(self.most_reserved, self.reserved)
        return segment.blocks[0]

    def _room(self, more: int) -> bool:
        return self.reserved + more <= self.limit * self.total and more <= self.left

    def _split(self, block: Block, size: int) -> None:
        rest = block.size - size
        if rest >= BLOCK if block.segment.small else rest > SMALL:
            row = block.segment.blocks
            row.insert(row.index(block) + 1, Block(block.segment, rest))
            block.size = size

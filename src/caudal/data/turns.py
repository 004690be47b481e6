"""Which sample comes when, for samples that lie in blocks: a pure function of (seed, epoch, position).

Blocks are visited in the order of a permutation, and k of them are open at any time. An epoch of V blocks
has V - k + 1 turns; in turn t the blocks t … t + k - 1 are open, and each gives the k-th part of its samples
(in the first and the last turn, what would have come before and after as well). Those of one turn are
shuffled among each other. So samples are always drawn across k blocks, the first and
the last turns included, and any turn can be worked out without the ones before it: an index of a million
samples starts at once, and the state to resume from is one position.

Threads, ranks and resumes change who does the work, never what is done.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from caudal.core.seeds import generator
from caudal.data.permutation import permute

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Drawn:
    """Consecutive positions of an epoch, resolved.

    `sample` are the samples' numbers in the set, `visit` the visit whose block holds each; arrays of one
    length. All visits before `first_open` are over once the first of them is reached; all before
    `first_closed` have to be open to complete them.
    """

    sample: Ints
    visit: Ints
    first_open: int
    first_closed: int


class Turns:
    """One epoch over blocks that end before the samples `ends`; `open_blocks` of them are open at once.

    Without `shuffle` the samples come as they lie, one block after the other.
    """

    def __init__(self, ends: Ints, open_blocks: int, seed: int, epoch: int, shuffle: bool = True) -> None:
        self.samples = int(ends[-1])
        self.visits = len(ends)
        self.open_blocks = max(1, min(open_blocks, self.visits)) if shuffle else 1
        self.turns = self.visits - self.open_blocks + 1
        self._ends, self._seed, self._epoch, self._shuffle = ends, seed, epoch, shuffle
        # Blocks of one sample need no table: a million of them would take a tenth of a second.
        self._single = self.visits == self.samples
        if not self._single:
            visits = np.arange(self.visits, dtype=np.int64)
            self._block = permute(visits, self.visits, seed, epoch) if shuffle else visits
            self._before = np.concatenate([[0], np.cumsum(self._counts(self._block))])
        self._own_order = lru_cache(2 * self.open_blocks + 2)(self._draw_own_order)
        self._turn = lru_cache(4)(self._draw_turn)

    def blocks(self, first: int, last: int) -> Ints:
        """The blocks of the visits `first` … `last` - 1."""
        if not self._single:
            return self._block[first:last]
        visits = np.arange(first, last, dtype=np.int64)
        return permute(visits, self.visits, self._seed, self._epoch) if self._shuffle else visits

    def draw(self, first: int, last: int) -> Drawn:
        """The positions `first` … `last` - 1 of the epoch."""
        assert 0 <= first < last <= self.samples
        if self._single:
            return Drawn(self.blocks(first, last), np.arange(first, last, dtype=np.int64), first, last)
        start = self._turn_at(first)
        stop, reached = start, self.given_before(start)
        samples, visits, offset = [], [], first - reached
        while reached < last:
            sample, visit = self._turn(stop)
            samples.append(sample)
            visits.append(visit)
            reached += len(sample)
            stop += 1
        span = slice(offset, offset + last - first)
        return Drawn(
            np.concatenate(samples)[span],
            np.concatenate(visits)[span],
            start,
            min(stop - 1 + self.open_blocks, self.visits),
        )

    def given_before(self, turn: int) -> int:
        """How many samples the turns before `turn` give."""
        if turn >= self.turns:
            return self.samples
        over = int(self._before[min(turn, self.visits)])  # these visits are over
        alive = np.arange(turn, min(turn + self.open_blocks, self.visits))
        return over + int(self._given(alive, turn, self._counts(self._block[alive])).sum())

    def most_open(self, batch: int) -> int:
        """How many visits are open at once, at the most, while batches of `batch` samples are made."""
        if self._single:
            return min(batch, self.visits)
        firsts = np.arange(0, self.samples, batch)
        lasts = np.minimum(firsts + batch, self.samples) - 1
        starts = np.array([self.given_before(t) for t in range(self.turns)], np.int64)
        spans = np.searchsorted(starts, lasts, "right") - np.searchsorted(starts, firsts, "right")
        return min(int(spans.max()) + self.open_blocks, self.visits)

    def _counts(self, blocks: Ints) -> Ints:
        begins = np.where(blocks > 0, self._ends[np.maximum(blocks, 1) - 1], 0)
        counts: Ints = self._ends[blocks] - begins
        return counts

    def _given(self, alive: Ints, turn: int, counts: Ints) -> Ints:
        """How many samples each of the visits open in `turn` has given before it."""
        age = turn - (alive - self.open_blocks + 1)
        given: Ints = age * counts // self.open_blocks if turn else np.zeros_like(counts)
        return given

    def _turn_at(self, position: int) -> int:
        low, high = 0, self.turns - 1
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.given_before(middle) <= position else (low, middle - 1)
        return low

    def _draw_own_order(self, visit: int) -> Ints:
        block = int(self._block[visit])
        begin = int(self._ends[block - 1]) if block else 0
        count = int(self._ends[block]) - begin
        if not self._shuffle:
            return np.arange(begin, begin + count, dtype=np.int64)
        return begin + generator(self._seed, "block", self._epoch, block).permutation(count).astype(np.int64)

    def _draw_turn(self, turn: int) -> tuple[Ints, Ints]:
        alive = np.arange(turn, min(turn + self.open_blocks, self.visits))
        counts = self._counts(self._block[alive])
        begins = self._given(alive, turn, counts)
        goes_on = (alive > turn) & (turn + 1 < self.turns)
        ends = np.where(goes_on, self._given(alive, turn + 1, counts), counts)
        giving = np.flatnonzero(
            ends > begins
        )  # few of them, where more blocks are open than a block has samples
        alive = alive[giving]
        shares = [
            self._own_order(visit)[i:j]
            for visit, i, j in zip(
                alive.tolist(), begins[giving].tolist(), ends[giving].tolist(), strict=True
            )
        ]
        if not shares:
            return np.empty(0, np.int64), alive
        sample = np.concatenate(shares)
        visits = np.repeat(alive, [len(share) for share in shares])
        if not self._shuffle:
            return sample, visits
        mixed = generator(self._seed, "turn", self._epoch, turn).permutation(len(sample))
        return sample[mixed], visits[mixed]

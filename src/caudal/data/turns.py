"""Which sample comes when, for samples that lie in blocks: a pure function of (seed, epoch, position).

Blocks are visited in the order of a permutation, some at a time (a group), and k groups are open at any time.
An epoch of G groups has G - k + 1 turns; in turn t the groups t … t + k - 1 are open, and each gives the k-th
part of its samples (in the first and the last turn, what would have come before and after as well). Those of
one turn are shuffled among each other. So samples are always drawn across all open blocks, the first and the
last turns included, and any turn can be worked out without the ones before it: an index of a million samples
starts at once, and the state to resume from is one position. Groups are so large that a turn is worth it.

Threads, ranks and resumes change who does the work, never what is done.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from caudal.core.seeds import generator
from caudal.data.permutation import permute
from caudal.data.sample_set import Chosen

Ints = npt.NDArray[np.int64]
_TURN_SAMPLES = 512
_STRETCH = 2048  # visits that are permuted at a time: a few alone would cost as much


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
    """One epoch over blocks that end before the samples `ends`; about `open_blocks` of them are open at once.

    Never more than `open_blocks`, and fewer by less than a group. Without `shuffle` the samples come as they
    lie, one block after the other. With `chosen` samples these, and the blocks that hold them, are numbered
    anew for all that is worked out here, and have their own numbers in what is given.
    """

    def __init__(
        self,
        ends: Ints,
        open_blocks: int,
        seed: int,
        epoch: int,
        shuffle: bool = True,
        chosen: Chosen | None = None,
    ) -> None:
        self.samples, self.visits = int(ends[-1]), len(ends)
        self._seed, self._epoch, self._shuffle = seed, epoch, shuffle
        self._chosen = chosen
        # Blocks of one sample need no table: a million of them would take a tenth of a second.
        self._single = self.visits == self.samples
        self._ends = ends
        # With everything open, any sample may come next: nothing has to come in turns.
        self._all = shuffle and not self._single and open_blocks >= self.visits
        if self._single or self._all:
            self._stretch = lru_cache(2)(self._draw_stretch)
            self.open_blocks = self.visits if self._all else 1
            return
        visits = np.arange(self.visits, dtype=np.int64)
        self._block = permute(visits, self.visits, seed, epoch) if shuffle else visits
        self._first = np.where(self._block > 0, ends[np.maximum(self._block, 1) - 1], 0)
        counts = ends[self._block] - self._first
        wanted = max(1, min(open_blocks, self.visits)) if shuffle else 1
        self._group = group_size(wanted, self.samples / self.visits)
        self._edges = np.append(np.arange(0, self.visits, self._group), self.visits)
        before = np.concatenate([[0], np.cumsum(counts)])
        self._before = before[self._edges]  # samples of the groups before each
        self._sizes, self._counts = np.diff(self._before), counts
        groups = len(self._sizes)
        self._open = groups if wanted == self.visits else max(1, wanted // self._group)
        self.open_blocks = min(self._open * self._group, self.visits)
        self.turns = groups - self._open + 1
        self._own_order = lru_cache(2 * self._open + 2)(self._draw_own_order)
        self._turn = lru_cache(4)(self._draw_turn)
        self._mark = (0, 0)  # a turn, and how many samples come before it

    def blocks(self, first: int, last: int) -> Ints:
        """The blocks of the visits `first` … `last` - 1."""
        blocks = self._blocks(first, last)
        return self._chosen.blocks[blocks] if self._chosen else blocks

    def draw(self, first: int, last: int) -> Drawn:
        """The positions `first` … `last` - 1 of the epoch."""
        drawn = self._drawn(first, last)
        return replace(drawn, sample=self._chosen.samples[drawn.sample]) if self._chosen else drawn

    def _blocks(self, first: int, last: int) -> Ints:
        if self._all or (self._single and not self._shuffle):
            return np.arange(first, last, dtype=np.int64)
        return self._permuted(first, last) if self._single else self._block[first:last]

    def _permuted(self, first: int, last: int) -> Ints:
        """The samples at the positions `first` … `last` - 1 where all are mixed."""
        parts = [self._stretch(number) for number in range(first // _STRETCH, -(-last // _STRETCH))]
        begin = first // _STRETCH * _STRETCH
        whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return whole[first - begin : last - begin]

    def _draw_stretch(self, number: int) -> Ints:
        numbers = np.arange(number * _STRETCH, min((number + 1) * _STRETCH, self.samples), dtype=np.int64)
        return permute(numbers, self.samples, self._seed, self._epoch)

    def _drawn(self, first: int, last: int) -> Drawn:
        assert 0 <= first < last <= self.samples
        if self._single:
            return Drawn(self._blocks(first, last), np.arange(first, last, dtype=np.int64), first, last)
        if self._all:
            samples = self._permuted(first, last)
            return Drawn(samples, np.searchsorted(self._ends, samples, "right"), 0, self.visits)
        start, reached = self._mark = self._turn_at(first)
        stop, drawn = start, []
        while reached < last:
            sample, visit = self._turn(stop)
            span = slice(max(0, first - reached), last - reached)
            drawn.append((sample[span], visit[span]))
            reached += len(sample)
            stop += 1
        closed = min((stop - 1 + self._open) * self._group, self.visits)
        sample, visit = (np.concatenate(arrays) for arrays in zip(*drawn, strict=True))
        return Drawn(sample, visit, start * self._group, closed)

    @property
    def mean_turn(self) -> float:
        """Samples of a turn."""
        return float(self.samples if self._single or self._all else self.samples / self.turns)

    def pair_chance(self, turns: int) -> float:
        """The chance that two samples of one turn are of one block, from about `turns` of the turns."""
        counts = np.diff(self._ends, prepend=0).astype(np.float64)
        if self._single or self._all:
            return float((counts * (counts - 1)).sum() / max(1.0, self.samples * (self.samples - 1.0)))
        same = pairs = 0.0
        for turn in sorted({int(at) for at in np.linspace(0, self.turns - 1, turns)}):
            alive = np.arange(turn, turn + self._open)
            given = self._given_until(alive, turn) - self._given(alive, turn)
            # Each block of a group gives as large a part of itself.
            visits = np.arange(self._edges[alive[0]], self._edges[alive[-1] + 1])
            parts = np.repeat(given / self._sizes[alive], np.diff(self._edges)[alive])
            from_each, total = self._counts[visits] * parts, float(given.sum())
            same += float((from_each * np.maximum(from_each - 1, 0)).sum()) * total
            pairs += total * (total - 1) * total
        return same / pairs if pairs else 0.0

    def given_before(self, turn: int) -> int:
        """How many samples the turns before `turn` give."""
        if turn >= self.turns:
            return self.samples
        over = int(self._before[turn])  # these groups are over
        return over + int(self._given(np.arange(turn, turn + self._open), turn).sum())

    def most_open(self, batch: int) -> int:
        """How many visits are open at once, at the most, while batches of `batch` samples are made."""
        if self._single or self._all:
            return self.visits if self._all else min(batch, self.visits)
        firsts = np.arange(0, self.samples, batch)
        lasts = np.minimum(firsts + batch, self.samples) - 1
        starts = np.array([self.given_before(t) for t in range(self.turns)], np.int64)
        spans = np.searchsorted(starts, lasts, "right") - np.searchsorted(starts, firsts, "right")
        return min((int(spans.max()) + self._open) * self._group, self.visits)

    def _given(self, alive: Ints, turn: int) -> Ints:
        """How many samples each of the groups open in `turn` has given before it."""
        age = turn - (alive - self._open + 1)
        given: Ints = age * self._sizes[alive] // self._open if turn else np.zeros(len(alive), np.int64)
        return given

    def _given_until(self, alive: Ints, turn: int) -> Ints:
        """How many samples each of them has given once `turn` is over."""
        goes_on = (alive > turn) & (turn + 1 < self.turns)
        given: Ints = np.where(goes_on, self._given(alive, turn + 1), self._sizes[alive])
        return given

    def _turn_at(self, position: int) -> tuple[int, int]:
        """The turn of a position, and how many samples come before that turn."""
        turn, before = self._mark
        if before <= position < before + len(self._turn(turn)[0]):  # as it is, step after step
            return turn, before
        low, high = 0, self.turns - 1
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.given_before(middle) <= position else (low, middle - 1)
        return low, self.given_before(low)

    def _draw_own_order(self, group: int) -> tuple[Ints, Ints]:
        """The samples of a group, mixed, and the visits that they come from."""
        visits = np.arange(self._edges[group], self._edges[group + 1])
        counts = self._counts[visits]
        within = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
        samples, visit = np.repeat(self._first[visits], counts) + within, np.repeat(visits, counts)
        if not self._shuffle:
            return samples, visit
        mixed = generator(self._seed, "group", self._epoch, group).permutation(len(samples))
        return samples[mixed], visit[mixed]

    def _draw_turn(self, turn: int) -> tuple[Ints, Ints]:
        alive = np.arange(turn, turn + self._open)
        begins, ends = self._given(alive, turn), self._given_until(alive, turn)
        giving = np.flatnonzero(ends > begins)
        if not len(giving):
            return np.empty(0, np.int64), np.empty(0, np.int64)
        shares = [
            (samples[i:j], visits[i:j])
            for group, i, j in zip(
                alive[giving].tolist(), begins[giving].tolist(), ends[giving].tolist(), strict=True
            )
            for samples, visits in [self._own_order(group)]
        ]
        sample = np.concatenate([samples for samples, _visits in shares])
        visit = np.concatenate([visits for _samples, visits in shares])
        if not self._shuffle:
            return sample, visit
        mixed = generator(self._seed, "turn", self._epoch, turn).permutation(len(sample))
        return sample[mixed], visit[mixed]


def group_size(open_blocks: int, mean_samples: float) -> int:
    """Blocks of a group: enough for a turn of some hundred samples, at most an eighth of the open ones."""
    return max(1, min(-(-_TURN_SAMPLES // max(1, int(mean_samples))), open_blocks // 8))

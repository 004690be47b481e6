"""Which samples make a step: consecutive positions of an epoch, cut by count or by cost, dealt out to ranks.

The cuts are the same for every number of ranks; a rank takes every `world`-th sample of each step.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from caudal.core.errors import DataError
from caudal.core.messages import _
from caudal.data.sample_files.base import Ints
from caudal.data.sample_set import SampleSet
from caudal.data.turns import Drawn, Turns


@dataclass(frozen=True)
class Rank:
    """This process's number among `world`."""

    rank: int = 0
    world: int = 1


@dataclass(frozen=True)
class Cut:
    """How steps are cut: `batch` samples each, and at most `budget` rows of the field `cost` (0: any)."""

    batch: int
    cost: str = ""
    budget: int = 0
    drop_last: bool = False


@dataclass(frozen=True)
class Step:
    """The samples of one step, or of a part of it that is not the last (`ends` is false then).

    `samples` and `visits` are this rank's, of `all_samples` and `all_visits` of every rank.
    """

    epoch: int
    first: int
    last: int
    samples: Ints
    visits: Ints
    all_samples: Ints
    all_visits: Ints
    first_open: int
    first_closed: int
    ends: bool


class Steps:
    """The steps of one epoch; one that needs more than `most_visits` blocks at once comes in parts."""

    def __init__(
        self,
        samples: SampleSet,
        turns: Turns,
        epoch: int,
        cut: Cut,
        rank: Rank,
        most_visits: int = 2**62,
    ) -> None:
        self._set, self._turns, self._epoch, self._cut, self._rank = samples, turns, epoch, cut, rank
        self._most_visits = most_visits

    def __len__(self) -> int:
        """How many there are; with a budget all of the epoch is laid out for it."""
        count, batch = self._turns.samples, self._cut.batch
        if not self._cut.budget:
            return count // batch if self._cut.drop_last else -(-count // batch)
        position = steps = 0
        while position < count:
            position = self._last(position)[0]
            steps += 1
        return steps

    def after(self, position: int) -> Iterator[Step]:
        """The steps from a position of the epoch on.

        Raises:
            DataError: one sample alone costs more than the budget.
        """
        while position < self._turns.samples:
            last, drawn = self._last(position)
            if self._cut.drop_last and not self._cut.budget and last - position < self._cut.batch:
                return
            yield from self._parts(position, last, drawn, 0)
            position = last

    def _parts(self, first: int, last: int, drawn: Drawn, skipped: int, ends: bool = True) -> Iterator[Step]:
        """The step, halved until each part needs few enough blocks; `skipped` positions of it came before."""
        if drawn.first_closed - drawn.first_open > self._most_visits and last - first > 1:
            middle = (first + last) // 2
            yield from self._parts(first, middle, self._turns.draw(first, middle), skipped, False)
            late = self._turns.draw(middle, last)
            yield from self._parts(middle, last, late, skipped + middle - first, ends)
            return
        own = slice((self._rank.rank - skipped) % self._rank.world, None, self._rank.world)
        yield Step(
            self._epoch,
            first,
            last,
            drawn.sample[own],
            drawn.visit[own],
            drawn.sample,
            drawn.visit,
            drawn.first_open,
            drawn.first_closed,
            ends,
        )

    def _last(self, position: int) -> tuple[int, Drawn]:
        last = min(position + self._cut.batch, self._turns.samples)
        drawn = self._turns.draw(position, last)
        if not self._cut.budget:
            return last, drawn
        costs = self._set.rows(self._cut.cost, drawn.sample)
        taken = int(np.searchsorted(np.cumsum(costs), self._cut.budget * self._rank.world, "right"))
        if taken == 0:
            raise DataError(
                _("A sample has {rows} rows of “{field}”, and a batch may have {budget}.").format(
                    rows=int(costs[0]), field=self._cut.cost, budget=self._cut.budget
                ),
                _("Give a larger budget of rows, or leave that sample out."),
            )
        if taken < len(costs):
            shorter = Drawn(drawn.sample[:taken], drawn.visit[:taken], drawn.first_open, drawn.first_closed)
            return position + taken, shorter
        return last, drawn

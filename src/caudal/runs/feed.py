"""What `caudal.stream` runs: samples as they lie, or patches cut from rasters, behind one face."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Protocol

import numpy as np

from caudal.core.messages import _
from caudal.core.units import Bytes
from caudal.data.broken import Broken
from caudal.data.passes import Pass
from caudal.data.quarantine import Quarantine
from caudal.data.sample_set import SampleSet
from caudal.data.sample_stream import SampleStream
from caudal.data.shuffle_quality import correlation_of, effective_share
from caudal.data.steps import Cut, Rank, Steps
from caudal.data.stream_size import StreamSize
from caudal.data.turns import Turns


@dataclass(frozen=True)
class StreamPlan:
    """What a stream will hold and deliver, known before a sample is read.

    `set_bytes` is what all samples take in memory. `effective_batch` is how many independent samples a batch
    is worth; `correlation` how far the labels of one block agree (`None`: unknown, counted as completely).
    """

    samples: int
    fields: tuple[str, ...]
    set_bytes: Bytes
    ram: Bytes
    arena_bytes: Bytes
    batch_size: int
    open_blocks: int
    effective_batch: float
    correlation: float | None
    threads: int
    notes: tuple[str, ...]

    def __str__(self) -> str:
        lines = [
            _("{count} samples of {fields}, {bytes} in memory").format(
                count=self.samples, fields="; ".join(self.fields), bytes=self.set_bytes
            ),
            _("batches of {batch}, worth {effective} independent samples ({blocks} blocks open)").format(
                batch=self.batch_size, effective=f"{self.effective_batch:.1f}", blocks=self.open_blocks
            ),
            _("{arena} of {ram} held, {threads} threads").format(
                arena=self.arena_bytes, ram=self.ram, threads=self.threads
            ),
        ]
        return "\n".join([*lines, *self.notes])


class Feed(Protocol):
    """What can be streamed, made ready for a budget. `open_blocks` decides the order beside `seed`."""

    @property
    def seed(self) -> int:
        """Where the order comes from."""
        ...

    @property
    def open_blocks(self) -> int:
        """Blocks that are open at once."""
        ...

    @property
    def samples_per_epoch(self) -> int:
        """Samples of an epoch."""
        ...

    @property
    def digest(self) -> str:
        """What tells its data from others."""
        ...

    @property
    def broken(self) -> list[Broken]:
        """What could not be read so far."""
        ...

    def plan(self) -> StreamPlan:
        """What it holds and delivers."""
        ...

    def fit(self, open_blocks: int) -> None:
        """Be ready to go on with the order of a run that had so many blocks open.

        Raises:
            DoesNotFit: they do not fit into the budget.
        """
        ...

    def resize(self, ram: Bytes) -> None:
        """Take no more than `ram` from now on; the order may become another.

        Raises:
            DoesNotFit: that is too little.
        """
        ...

    def most_rows(self, name: str) -> int:
        """The most rows of the ragged field `name` in one batch."""
        ...

    def batches(self, epochs: int) -> int:
        """How many batches so many epochs have."""
        ...

    def run(self, epoch: int, position: int, epochs: int, shared: bool = False) -> Pass:
        """Begin at a position and go on to the end of epoch `epochs` - 1; `shared` with another process."""
        ...


class SampleFeed:
    """Samples as they lie in their files."""

    def __init__(
        self,
        samples: SampleSet,
        cut: Cut,
        ram: Bytes,
        shuffle: bool | float,
        seed: int,
        threads: int,
        rank: Rank,
        quarantine: Quarantine,
        debug: bool,
    ) -> None:
        self.seed, self.samples_per_epoch, self.open_blocks = seed, samples.drawn, 0
        self._set, self._cut, self._ram, self._shuffle = samples, cut, ram, shuffle
        self._threads, self._rank, self._quarantine, self._debug = threads, rank, quarantine, debug
        self._correlation = cache(lambda: correlation_of(samples, seed))
        self.fit(0)

    @property
    def digest(self) -> str:
        """See `Feed.digest`."""
        return self._set.digest

    @property
    def broken(self) -> list[Broken]:
        """See `Feed.broken`."""
        return list(self._quarantine.broken)

    def fit(self, open_blocks: int) -> None:
        """See `Feed.fit`."""
        self._size = StreamSize.fit(
            self._set,
            self._ram,
            self._cut.batch,
            self._threads,
            self._shuffle,
            self._worst_correlation,
            open_blocks,
        )
        self.open_blocks = self._size.open_blocks

    def _worst_correlation(self) -> float:
        known = self._correlation()
        return 1.0 if known is None else known

    def resize(self, ram: Bytes) -> None:
        """See `Feed.resize`."""
        self._ram = ram
        self.fit(0)

    def most_rows(self, name: str) -> int:
        """See `Feed.most_rows`."""
        rows = np.sort(self._set.rows(name, np.arange(len(self._set))))[-self._cut.batch :]
        most = int(rows.sum())
        return min(most, self._cut.budget) if self._cut.budget and self._cut.cost == name else most

    def plan(self) -> StreamPlan:
        """See `Feed.plan`."""
        return StreamPlan(
            self._set.drawn,
            tuple(f"{one.name} {one.dtype}{list(one.shape)}" for one in self._set.fields),
            Bytes(self._set.total_bytes),
            self._ram,
            self._size.arena_bytes,
            self._cut.batch,
            self.open_blocks,
            self._effective_batch(),
            self._correlation() if self._shuffle else None,
            self._threads,
            self._set.notes,
        )

    def _effective_batch(self) -> float:
        if self._set.direct:
            return float(self._cut.batch)
        if not self._shuffle:
            return 1.0
        ends, batch = self._set.drawn_ends, self._cut.batch
        return batch * effective_share(ends, batch, self.open_blocks, self._worst_correlation())

    def batches(self, epochs: int) -> int:
        """See `Feed.batches`."""
        ends, chosen = self._set.drawn_ends, self._set.chosen
        total = 0
        for epoch in range(epochs if self._cut.budget else 1):
            turns = Turns(ends, self.open_blocks, self.seed, epoch, bool(self._shuffle), chosen)
            total += len(Steps(self._set, turns, epoch, self._cut, self._rank))
        return total if self._cut.budget else total * epochs

    def run(self, epoch: int, position: int, epochs: int, shared: bool = False) -> Pass:
        """See `Feed.run`."""
        return SampleStream(
            self._set,
            self._size,
            self._cut,
            seed=self.seed,
            shuffle=bool(self._shuffle),
            epochs=epochs,
            threads=self._threads,
            rank=self._rank,
            quarantine=self._quarantine,
            epoch=epoch,
            position=position,
            debug=self._debug,
            shared=shared,
        )

"""Batches of a set for training and for scoring, inside the bytes that a plan gives them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice, pairwise

import numpy as np

from caudal.core.errors import DoesNotFit
from caudal.core.seeds import generator
from caudal.core.units import MIB, Bytes
from caudal.data.batches import Batch
from caudal.data.quarantine import Quarantine
from caudal.data.sample_files.base import Ints
from caudal.data.sample_set import Chosen, SampleSet
from caudal.data.sample_stream import SampleStream
from caudal.data.steps import Cut, Rank
from caudal.data.stream_size import StreamSize

MOST_SHARES = 16
"""In how many steps the memory of a stream can be made smaller; of large samples it cannot."""
_MOST_BYTES = 512 * MIB
_TRIES = 8
_SCORED_AT_ONCE = 32
_SCORED_BYTES = 8 * MIB  # of the largest samples: a batch of long ones would take more than a step of one


def least_ram(samples: SampleSet, batch: int, threads: int) -> Bytes:
    """The least that a stream of whole batches takes."""
    _largest, most = samples.largest_bytes(min(batch, samples.drawn))
    # Of sets in blocks a third of the room is for batches.
    ram = Bytes(most * (2 if samples.direct else 4) + MIB)
    for _try in range(_TRIES):
        try:
            size = _fit(samples, ram, batch, threads)
        except DoesNotFit as error:
            ram = Bytes(max(int(str(error.facts["least"])), ram * 5 // 4))
            continue
        if size.ring_bytes >= most:
            return ram
        ram = Bytes(ram * 3 // 2)
    return ram


def wanted_ram(samples: SampleSet, batch: int, threads: int) -> Bytes:
    """What a stream is better for: a few batches ahead, and small sets whole."""
    least = least_ram(samples, batch, threads)
    _largest, most = samples.largest_bytes(min(batch, samples.drawn))
    ahead = 4 * most if samples.direct else samples.total_bytes * 5 // 4
    return Bytes(max(least, min(_MOST_BYTES, least + ahead)))


def _fit(samples: SampleSet, ram: Bytes, batch: int, threads: int, shuffle: bool = True) -> StreamSize:
    return StreamSize.fit(samples, ram, batch, threads, shuffle, lambda: 1.0)


def evened(samples: SampleSet, members: Ints, classes: Ints, seed: int) -> SampleSet:
    """A set of which streams draw `members` so that every class comes as often as the most frequent one.

    `classes` (members,) are class numbers. Samples of a rarer class come several times an epoch: all as
    often, but for one draw more of some, chosen by the seed.
    """
    counts = np.bincount(classes)
    most, times = int(counts.max()), np.zeros(len(members), np.int64)
    for one in np.flatnonzero(counts):
        mine = np.flatnonzero(classes == one)
        times[mine] = most // len(mine)
        more = generator(seed, "evened", int(one)).permutation(len(mine))[: most % len(mine)]
        times[mine[more]] += 1
    drawn = np.repeat(members, times)
    blocks = np.searchsorted(samples.columns.block_ends, drawn, "right")
    last = np.arange(len(drawn)) if samples.direct else np.flatnonzero(np.diff(blocks, append=-1))
    return replace(samples, chosen=Chosen(drawn, blocks[last], last + 1))


@contextmanager
def training_batches(
    samples: SampleSet,
    ram: Bytes,
    batch: int,
    *,
    seed: int,
    threads: int,
    start: int,
    stop: int,
    rank: Rank | None = None,
) -> Iterator[Iterator[Batch]]:
    """The batches of the steps `start` … `stop` - 1, all of `batch` samples; an epoch's rest is left out.

    Of several processes `rank` gets its share of each.
    """
    in_epoch = samples.drawn // batch
    epoch, within = divmod(start, in_epoch)
    stream = SampleStream(
        samples,
        _fit(samples, ram, batch, threads),
        Cut(batch, drop_last=True),
        seed=seed,
        shuffle=True,
        epochs=-(-stop // in_epoch),
        threads=threads,
        rank=rank or Rank(),
        quarantine=Quarantine(samples, seed),
        epoch=epoch,
        position=within * batch,
    )
    try:
        yield islice(stream, stop - start)
    finally:
        stream.close()


REHEARSED = 3
"""Batches that say what a stream of them takes: by then every buffer has been asked for."""


def scored_at_once(samples: SampleSet) -> int:
    """How many samples go through the model together where nothing is learned."""
    return max(1, min(_SCORED_AT_ONCE, _SCORED_BYTES // max(1, samples.largest_bytes(1)[0])))


@contextmanager
def scoring_batches(samples: SampleSet, batch: int, threads: int) -> Iterator[Iterator[Batch]]:
    """Every chosen sample once, in the order in which they lie.

    One that cannot be read does not come, nor another in its place; `samples.broken` names it.

    Raises:
        UnreadableFile: none of them can be read.
        TooManyBroken: more of the set than is taken for an accident.
    """
    batch = min(batch, samples.drawn)
    ram = least_ram(samples, batch, threads)
    quarantine = Quarantine(samples, 0, replace=False)
    stream = SampleStream(
        samples,
        _fit(samples, ram, batch, threads, shuffle=False),
        Cut(batch),
        seed=0,
        shuffle=False,
        epochs=1,
        threads=threads,
        rank=Rank(),
        quarantine=quarantine,
    )
    try:
        yield _sound(stream, quarantine)
    finally:
        stream.close()


def _sound(stream: SampleStream, quarantine: Quarantine) -> Iterator[Batch]:
    """The batches of a stream without what is broken: one that holds any comes in the parts between."""
    seen = False
    for batch in stream:
        if not quarantine.knows_any:
            seen = True
            yield batch
            continue
        edges = [-1, *np.flatnonzero(quarantine.is_broken(batch.samples)).tolist(), batch.size]
        for before, after in pairwise(edges):
            if after - before > 1:
                seen = True
                yield batch.part(before + 1, after, batch.ends_step)
    if not seen:
        raise quarantine.nothing_left()

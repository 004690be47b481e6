"""Samples of many files as one numbered set: packed columns, never a Python object a sample.

It knows where every sample lies and how many bytes it has. It does not know in
which order they are wanted; `open_parts` reads them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from caudal.data import graphs
from caudal.data.broken import BrokenSamples
from caudal.data.index import Names
from caudal.data.sample_files.base import Array, Field, Ints, SampleReader

DIRECT_BYTES = 32 * 2**10  # raw samples from this size on are read one by one, straight to their place
BLOCK_BYTES = 64 * 2**10  # smaller ones are read together: half the speed of a disk, and a fine shuffle


@dataclass(frozen=True)
class Columns:
    """What is known of every sample and file, one entry each.

    `file_ends`, `block_ends`: number of the first sample after each file and each block; `file_blocks`:
    number of the first block after each file. `row_ends[field]`: rows of all samples up to and with this
    one, for ragged fields. `places[field]`: where the sample's bytes begin in its file, for raw files.
    `sizes`: bytes of the files. `extra[field]`: values that come from
    folders or a table instead of the files. `checks`: CRC-32 of (block, field), if known. `recode[field]`
    (files, codes): what a file's numbers for texts are in the set, where files number them differently.
    """

    names: Names
    sizes: Ints
    file_ends: Ints
    file_blocks: Ints
    block_ends: Ints
    row_ends: Mapping[str, Ints]
    places: Mapping[str, Ints] | None
    extra: Mapping[str, Array] = field(default_factory=dict)
    checks: npt.NDArray[np.uint32] | None = None
    recode: Mapping[str, Ints] = field(default_factory=dict)


@dataclass(frozen=True)
class Chosen:
    """Some samples of a set by their numbers, in growing order; `blocks` are those that hold any of them.

    `ends[k]` of the chosen samples lie in the first k + 1 of these blocks.
    """

    samples: Ints
    blocks: Ints
    ends: Ints


@dataclass(frozen=True)
class SampleSet:
    """`fields` of the files and, after them, of `columns.extra`; what the user should know in `notes`.

    `unreadable` are files that would hold one sample each and are not in the set: their names, and why. The
    rows of `overlapping` samples may be those of others, too. With `joined` samples are graphs, and a batch
    of them is one graph; see `graphs`. Of a set with `chosen` samples a stream draws those alone; all
    others keep their numbers, and can be read. `broken` is no part of what the set is: streams of it,
    however it was narrowed, note there what they cannot read.
    """

    root: str
    fields: tuple[Field, ...]
    columns: Columns
    reader: SampleReader
    whole: bool
    scratch_bytes: int
    notes: tuple[str, ...] = ()
    unreadable: tuple[tuple[str, str], ...] = ()
    joined: bool = False
    overlapping: bool = False
    chosen: Chosen | None = None
    broken: BrokenSamples = field(default_factory=BrokenSamples, compare=False, repr=False)

    def __len__(self) -> int:
        return int(self.columns.file_ends[-1])

    def only(self, samples: Ints) -> SampleSet:
        """This set, of which streams draw `samples` alone: their numbers, in growing order, at least one."""
        assert len(samples)
        assert (np.diff(samples) > 0).all()
        blocks = np.searchsorted(self.columns.block_ends, samples, "right")
        last = np.flatnonzero(np.diff(blocks, append=-1))
        return replace(self, chosen=Chosen(samples, blocks[last], last + 1))

    @property
    def drawn(self) -> int:
        """How many samples a stream draws in an epoch."""
        return len(self.chosen.samples) if self.chosen else len(self)

    @property
    def drawn_ends(self) -> Ints:
        """How many of them lie in the blocks up to and with each, over blocks that hold any."""
        return self.chosen.ends if self.chosen else self.columns.block_ends

    @property
    def stored(self) -> tuple[Field, ...]:
        """The fields that are read from the files."""
        return tuple(f for f in self.fields if f.name not in self.columns.extra)

    @property
    def raw(self) -> bool:
        """Whether bytes are fetched as they are."""
        return self.columns.places is not None

    @property
    def direct(self) -> bool:
        """Whether every sample is a block of its own."""
        return len(self.columns.block_ends) == len(self)

    def rows(self, name: str, samples: Ints) -> Ints:
        """How many rows the ragged field `name` has in each sample."""
        rows: Ints = self.columns.row_ends[name][samples] - self.rows_before(name, samples)
        return rows

    def rows_before(self, name: str, samples: Ints) -> Ints:
        """How many rows of the ragged field `name` all samples before each have."""
        before: Ints = self.columns.row_ends[name][samples - 1]  # of sample 0 it is the last, for a moment
        before[samples == 0] = 0
        return before

    def sample_bytes(self, samples: Ints) -> Ints:
        """Bytes of each sample in a batch, all fields."""
        total = np.zeros(len(samples), np.int64)
        for one in self.fields:
            total += one.row_bytes * (self.rows(one.name, samples) if one.ragged else 1)
        if self.joined:
            total += graphs.joined_bytes(self.rows(graphs.NODES, samples), self.rows(graphs.EDGES, samples))
        return total

    def largest_bytes(self, count: int) -> tuple[int, int]:
        """Bytes in memory of the largest sample, and of the `count` largest together."""
        if not any(one.ragged for one in self.fields):
            each = sum(one.row_bytes for one in self.fields)
            return each, each * min(count, self.drawn)
        sizes = self.sample_bytes(self.chosen.samples if self.chosen else np.arange(len(self)))
        most = np.partition(sizes, -count)[-count:] if count < len(sizes) else sizes
        return int(sizes.max()), int(most.sum())

    @property
    def digest(self) -> str:
        """What tells this set from others: names and sizes of its files, and how many samples they hold."""
        digest = hashlib.blake2b(digest_size=8)
        for array in (self.columns.names.blob, self.columns.sizes, self.columns.file_ends):
            digest.update(array.tobytes())
        return digest.hexdigest()

    @property
    def total_bytes(self) -> int:
        """Bytes of all samples in memory."""
        rows = {name: int(ends[-1]) for name, ends in self.columns.row_ends.items()}
        return sum(f.row_bytes * rows.get(f.name, len(self)) for f in self.fields)

    def block_begin(self, block: int) -> int:
        """The first sample of a block."""
        return int(self.columns.block_ends[block - 1]) if block else 0

    def block_bytes(self) -> Ints:
        """Bytes of each block in memory, the fields that are read alone; gaps between fields not counted."""
        ends = self.columns.block_ends
        counts = np.diff(ends, prepend=0)
        total = np.zeros(len(ends), np.int64)
        for one in self.stored:
            if one.ragged:
                total += np.diff(self.columns.row_ends[one.name][ends - 1], prepend=0) * one.row_bytes
            else:
                total += counts * one.row_bytes
        return total

    def shape(self, one: Field, first: int, last: int) -> tuple[int, ...]:
        """The shape of a field of the samples `first` … `last` - 1 together."""
        if not one.ragged:
            return (last - first, *one.row_shape)
        ends = self.columns.row_ends[one.name]
        return (int(ends[last - 1]) - (int(ends[first - 1]) if first else 0), *one.row_shape)

    def where(self, sample: int) -> tuple[int, int]:
        """The file of a sample, and its number there."""
        file = int(np.searchsorted(self.columns.file_ends, sample, "right"))
        return file, sample - (int(self.columns.file_ends[file - 1]) if file else 0)

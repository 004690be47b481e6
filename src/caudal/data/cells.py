"""Blocks of small samples in memory, and batches gathered from them.

Every cell of one size holds one block, field after field. A field's first byte lies at a multiple of its
row's bytes counted from the first cell, so that any row of any cell is an entry of one table, and a batch
drawn across hundreds of blocks is one gather a field.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeVar

import numpy as np

from caudal.data.sample_files.base import Array, Field, Ints
from caudal.data.sample_set import SampleSet
from caudal.memory.arena import ALIGNMENT_BYTES, Arena

_MOST_STEP = 2**16  # past this, aligning to every row would cost more than copying sample by sample

_Count = TypeVar("_Count", int, Ints)


def _step(fields: tuple[Field, ...]) -> int:
    """A multiple of every row's bytes; 0 if there is no small one."""
    step = math.lcm(ALIGNMENT_BYTES, *(max(1, one.row_bytes) for one in fields))
    return step if step <= _MOST_STEP else 0


class CellSize:
    """How a block lies in a cell. `nbytes` of one cell, for the largest block of the set."""

    def __init__(self, samples: SampleSet) -> None:
        self.step = _step(samples.stored)
        self.align = self.step or ALIGNMENT_BYTES
        blocks = _largest_blocks(samples)
        ends = samples.columns.block_ends
        first, last = np.where(blocks, ends[blocks - 1], 0), ends[blocks]
        taken = np.zeros(len(blocks), np.int64)
        for one in samples.stored:
            rows = last - first
            if one.ragged:
                rows = samples.columns.row_ends[one.name][last - 1] - samples.rows_before(one.name, first)
            taken += self.aligned(rows * one.row_bytes)
        self.nbytes = max(int(taken.max()), self.align)

    def aligned(self, nbytes: _Count) -> _Count:
        """What a field of so many bytes takes in a cell; of many fields at once, too."""
        return -(-nbytes // self.align) * self.align


def _largest_blocks(samples: SampleSet) -> Ints:
    """Blocks that may be the largest once each field is aligned."""
    sizes = samples.block_bytes()
    slack = (_MOST_STEP + ALIGNMENT_BYTES) * max(1, len(samples.stored))
    return np.flatnonzero(sizes >= sizes.max() - slack)


class Cells:
    """`count` cells; which block lies in which is the owner's matter, and so are locks."""

    def __init__(self, arena: Arena, samples: SampleSet, size: CellSize, count: int) -> None:
        self._set, self._size = samples, size
        # The table of rows begins at a multiple of every row's bytes, so the cells do.
        nbytes = size.nbytes * count
        self._memory = arena.lease(nbytes).array((nbytes,), np.dtype(np.uint8))
        self.free = list(range(count - 1, -1, -1))
        self._begin = {one.name: np.zeros(count, np.int64) for one in samples.stored}
        self._first = np.zeros(count, np.int64)
        # Blocks that do not stay come again in every epoch: what is the same for all is looked up once.
        self._fields = [
            (one.name, one.dtype, one.row_bytes, one.row_shape, samples.columns.row_ends.get(one.name))
            for one in samples.stored
        ]

    def views(self, cell: int, block: int) -> dict[str, Array]:
        """Arrays for the fields of `block`, in `cell`; from now on it is the one that lies there."""
        first, last = self._set.block_begin(block), int(self._set.columns.block_ends[block])
        self._first[cell] = first
        views, begin = {}, cell * self._size.nbytes
        for name, dtype, row_bytes, row_shape, row_ends in self._fields:
            rows = last - first
            if row_ends is not None:
                rows = int(row_ends[last - 1]) - (int(row_ends[first - 1]) if first else 0)
            self._begin[name][cell] = begin
            nbytes = rows * row_bytes
            views[name] = self._memory[begin : begin + nbytes].view(dtype).reshape(rows, *row_shape)
            begin += self._size.aligned(nbytes)
        return views

    def gather(self, samples: Ints, cells: Ints, into: Mapping[str, Array]) -> None:
        """Bring `samples`, each of which lies in one of `cells`, into the arrays of a batch."""
        first = self._first[cells]
        for one in self._set.stored:
            if one.ragged:
                before = self._set.rows_before(one.name, samples)
                in_block = before - self._set.rows_before(one.name, first)
                counts = self._set.columns.row_ends[one.name][samples] - before
            else:
                in_block, counts = samples - first, np.ones(len(samples), np.int64)
            self._copy(one, self._begin[one.name][cells], in_block, counts, into[one.name])

    def _copy(self, one: Field, begins: Ints, rows: Ints, counts: Ints, out: Array) -> None:
        row_bytes = one.row_bytes
        if not row_bytes or not len(out):
            return
        items = row_bytes // one.dtype.itemsize
        if self._size.step:
            whole = len(self._memory) // row_bytes * row_bytes
            table = self._memory[:whole].view(one.dtype).reshape(-1, items)
            starts = begins // row_bytes + rows
            if one.ragged:
                skipped = np.repeat(starts - (np.cumsum(counts) - counts), counts)
                starts = skipped + np.arange(len(skipped))
            np.take(table, starts, axis=0, out=out.reshape(-1, items), mode="clip")
            return
        at = 0
        target = out.reshape(-1).view(np.uint8)
        for begin, row, count in zip(begins.tolist(), rows.tolist(), counts.tolist(), strict=True):
            source = begin + row * row_bytes
            nbytes = count * row_bytes
            target[at : at + nbytes] = self._memory[source : source + nbytes]
            at += nbytes

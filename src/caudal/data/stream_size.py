"""What a stream over samples holds: its memory divided between batches, open blocks and blocks that stay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from caudal.core.errors import DoesNotFit
from caudal.core.messages import _
from caudal.core.units import MIB, Bytes
from caudal.data.cells import CellSize
from caudal.data.mapped import cached_files
from caudal.data.sample_files.base import Array, Ints
from caudal.data.sample_set import SampleSet
from caudal.data.shuffle_quality import blocks_for
from caudal.data.turns import group_size
from caudal.data.uncached_file import CHUNK_BYTES
from caudal.memory.arena import ALIGNMENT_BYTES

WANTED_SHARE = 0.98  # a shuffle that nobody could tell from a perfect one
_BATCHES = 6  # in use, being read, and a few ahead
_LEAST_RING_BYTES = 8 * MIB
_MANY_OPEN = 64
# Threads, queues, libraries that come with the first read, the order: measured; gathering takes more of it.
_DIRECT_OWN_BYTES, _GATHER_OWN_BYTES = 3 * MIB, 13 * MIB


@dataclass(frozen=True)
class StreamSize:
    """`arena_bytes` in all: a ring of `ring_bytes` for batches, and `cells` for blocks.

    `open_blocks` are open at once; `kept_cells` of the cells may hold blocks that stay for ever.
    """

    arena_bytes: Bytes
    ring_bytes: int
    cells: int
    cell: CellSize
    open_blocks: int
    kept_cells: int

    @classmethod
    def fit(
        cls,
        samples: SampleSet,
        ram: Bytes,
        batch: int,
        threads: int,
        shuffle: bool | float,
        correlation: Callable[[], float],
        open_blocks: int = 0,
    ) -> StreamSize:
        """Divide `ram` for batches of `batch` samples.

        `shuffle` is whether to, or the effective share that is asked for. `correlation` of labels within
        blocks (see `shuffle_quality`) is asked for where it matters: labels may have to be read.
        `open_blocks` is what a run that is resumed had; otherwise it follows from the rest, but not from the
        number of threads.

        Raises:
            DoesNotFit: one sample, or the blocks that have to be open, need more.
        """
        own = min(_DIRECT_OWN_BYTES, ram // 8) if samples.direct else min(_GATHER_OWN_BYTES, ram // 4)
        own += _column_bytes(samples)
        held = own + threads * (samples.scratch_bytes + _buffer_bytes(samples))
        gaps = len(samples.fields) * ALIGNMENT_BYTES
        largest, most = samples.largest_bytes(batch)
        largest, most = largest + gaps, most + min(batch, samples.drawn) * gaps
        whole = samples.total_bytes + len(samples) * gaps
        room = int(ram) - held
        wanted_ring = max(_BATCHES * most, min(_LEAST_RING_BYTES, whole))
        cell = CellSize(samples)
        if samples.direct:
            if largest > room:
                raise _too_small(held + largest, ram, _("one sample of {size}").format(size=Bytes(largest)))
            ring = min(wanted_ring, room)
            return cls(Bytes(ring + 2 * ALIGNMENT_BYTES), ring, 0, cell, 1, 0)
        ends = samples.drawn_ends
        blocks = len(ends)
        mean = samples.drawn / blocks
        wanted, least = 1, 1
        if open_blocks:
            wanted = least = open_blocks
        elif shuffle is True:  # many are good for the batches of a while together, not for each alone
            wanted = min(blocks, int(2 * mean), _MANY_OPEN)
            if wanted < blocks:
                wanted = max(wanted, blocks_for(WANTED_SHARE, ends, batch, correlation()))
        elif shuffle:
            wanted = least = blocks_for(float(shuffle), ends, batch, correlation())
        # What is left for blocks with two threads decides the order, so that other numbers do not change it.
        order_room = int(ram) - own - 2 * samples.scratch_bytes
        ring = max(largest, min(wanted_ring, min(room, order_room) // 3))
        order_cells = (order_room - ring) // cell.nbytes
        group = group_size(min(order_cells, blocks), mean) if shuffle else 1
        span = (-(-batch // max(1, int(mean * group))) + 2) * group  # turns that a batch may reach over
        most_open = _most_open(order_cells, blocks, span)
        cells = min((room - ring) // cell.nbytes, blocks + threads)
        opened = min(wanted, most_open)
        if most_open < least or _most_open(cells, blocks, span) < opened:
            needed = held + ring + (max(least, 1) + span) * cell.nbytes
            who = _("{count} open blocks of {size}").format(count=max(least, 1), size=Bytes(cell.nbytes))
            raise _too_small(needed, ram, who)
        kept = blocks if cells >= blocks else max(0, cells - opened - span - threads)
        return cls(
            Bytes(ring + cells * cell.nbytes + 4 * ALIGNMENT_BYTES),
            ring,
            int(cells),
            cell,
            opened,
            kept,
        )

    def parts(self, sizes: Ints) -> list[tuple[int, int]]:
        """A batch with samples of these bytes, cut into consecutive parts that fit: [(first, last), …]."""
        sizes = sizes + ALIGNMENT_BYTES
        room = self.ring_bytes - 8 * ALIGNMENT_BYTES
        if not len(sizes) or int(sizes.sum()) <= room:
            return [(0, len(sizes))]
        cuts, held = [0], 0
        for k, size in enumerate(sizes.tolist()):
            if held + size > room // 2 and held:
                cuts.append(k)
                held = 0
            held += size
        return list(pairwise([*cuts, len(sizes)]))


def _buffer_bytes(samples: SampleSet) -> int:
    """What a thread reads through where files do not go through the page cache."""
    return CHUNK_BYTES if cached_files(samples) < len(samples.columns.sizes) else 0


def _most_open(cells: int, blocks: int, span: int) -> int:
    return blocks if cells >= blocks else max(0, cells - span)


def _column_bytes(samples: SampleSet) -> int:
    columns = samples.columns
    arrays: list[Array] = [
        columns.names.blob,
        columns.names.ends,
        columns.sizes,
        columns.file_ends,
        columns.file_blocks,
    ]
    arrays += [columns.block_ends, *columns.row_ends.values(), *(columns.places or {}).values()]
    arrays += list(columns.extra.values())
    return sum(array.nbytes for array in arrays if not isinstance(array, np.memmap))


def _too_small(least: int, ram: Bytes, who: str) -> DoesNotFit:
    return DoesNotFit(
        _("The stream needs at least {least}, and {ram} were given, for {who}.").format(
            least=Bytes(least), ram=ram, who=who
        ),
        _("Give that much with ram=, or repack the set into smaller samples or blocks (`caudal pack`)."),
        least=least,
    )

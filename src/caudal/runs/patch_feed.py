"""Patches cut from rasters, for `caudal.stream`: a block is decoded once, however many patches it feeds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

from caudal.core.errors import DoesNotFit
from caudal.core.messages import _
from caudal.core.units import MIB, Bytes
from caudal.data.batches import Batch
from caudal.data.chunk_reader import ChunkReader, OpenFiles
from caudal.data.chunks import Cutter
from caudal.data.classes import Classes
from caudal.data.index import Index
from caudal.data.passes import Pass
from caudal.data.quarantine import Broken
from caudal.data.sample_stream import Meter
from caudal.data.shuffle_quality import effective_share
from caudal.data.stream import PatchStream, StreamSize
from caudal.memory.arena import Arena
from caudal.runs.feed import StreamPlan

_MOST_OPEN = 256
_CHUNK_COPIES = 2  # a chunk while it is decoded, and brought to its order
_OWN_BYTES = 2 * MIB


class PatchFeed:
    """Square patches of `patch_px`, as many pixels an epoch as the rasters have.

    Field `image` (B, P, P, bands) in the rasters' own units. A batch may reach over two epochs.
    """

    def __init__(self, index: Index, patch_px: int, batch: int, ram: Bytes, seed: int, threads: int) -> None:
        self.seed = seed
        self._index, self._batch, self._ram, self._threads = index, batch, ram, threads
        self._cutter = Cutter(index, tuple(range(len(index))), patch_px, seed)
        self.samples_per_epoch = self._cutter.samples
        self.fit(0)

    @property
    def digest(self) -> str:
        """See `Feed.digest`."""
        digest = hashlib.blake2b(digest_size=8)
        for column in (self._index.images.blob, self._index.height, self._index.width, self._index.bytes):
            digest.update(column.tobytes())
        return digest.hexdigest()

    @property
    def broken(self) -> list[Broken]:
        """Always empty: a raster that cannot be read stops the stream."""
        return []

    def fit(self, open_blocks: int) -> None:
        """See `Feed.fit`."""
        most = max(2, min(_MOST_OPEN, len(self._cutter.most_patches)))
        low, high = (open_blocks, open_blocks) if open_blocks else (2, most)
        if self._needed(low) > self._ram:
            raise DoesNotFit(
                _("The stream needs at least {least}, and {ram} were given.").format(
                    least=Bytes(self._needed(low)), ram=self._ram
                ),
                _("Give that much with ram=, or smaller patches or batches."),
                least=self._needed(low),
            )
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self._needed(middle) <= self._ram else (low, middle - 1)
        self.open_blocks = low

    def _needed(self, open_blocks: int) -> int:
        arena = StreamSize.of(self._cutter, self._batch, open_blocks).arena_bytes
        # Two threads decide the order; more of them take from what the arena leaves.
        scratch = max(2, self._threads) * _CHUNK_COPIES * self._cutter.largest_bytes
        return int(arena) + scratch + _OWN_BYTES

    def plan(self) -> StreamPlan:
        """See `Feed.plan`."""
        side = self._cutter.patch_px
        # The order of patches takes as even a share of each open chunk as that of blocks does.
        ends = np.cumsum(self._cutter.cut(0).patches)
        share = effective_share(ends, self._batch, self.open_blocks, 1.0)
        return StreamPlan(
            self.samples_per_epoch,
            (f"image {self._index.dtype}[{side}, {side}, {self._index.bands}]",),
            Bytes(self._index.decoded_bytes),
            self._ram,
            self.arena_bytes,
            self._batch,
            self.open_blocks,
            self._batch * share,
            None,
            self._threads,
            self._index.warnings,
        )

    def resize(self, ram: Bytes) -> None:
        """See `Feed.resize`."""
        self._ram = ram
        self.fit(0)

    def most_rows(self, name: str) -> int:
        """See `Feed.most_rows`; patches are not ragged."""
        raise AssertionError(name)

    def batches(self, epochs: int) -> int:
        """See `Feed.batches`."""
        return epochs * self.samples_per_epoch // self._batch

    def run(self, epoch: int, position: int, epochs: int, shared: bool = False) -> Pass:
        """See `Feed.run`."""
        return _Patches(self, epoch, position, epochs, shared)

    def open(self, start: int, stop: int, arena: Arena) -> PatchStream:
        """The batches `start` … `stop` - 1, in an arena of `arena_bytes`."""
        fill = np.zeros((len(self._index.layouts), self._index.bands), np.float32)
        reader = ChunkReader(self._index, Classes(values=(0,)), fill, OpenFiles())
        return PatchStream(
            self._cutter,
            reader,
            arena,
            batch=self._batch,
            open_chunks=self.open_blocks,
            threads=self._threads,
            start=start,
            stop=stop,
        )

    @property
    def arena_bytes(self) -> Bytes:
        """What a pass leases."""
        return StreamSize.of(self._cutter, self._batch, self.open_blocks).arena_bytes

    @property
    def batch(self) -> int:
        """Patches in a batch."""
        return self._batch


class _Patches:
    """A pass over the patches."""

    def __init__(self, feed: PatchFeed, epoch: int, position: int, epochs: int, shared: bool) -> None:
        self.epoch, self.position, self.meter = epoch, position, Meter()
        self._feed = feed
        first = (epoch * feed.samples_per_epoch + position) // feed.batch
        self.arena = Arena(feed.arena_bytes, shared)
        self._stream = feed.open(first, feed.batches(epochs), self.arena)

    def __iter__(self) -> Iterator[Batch]:
        for patches in self._stream:
            samples = patches.sample_B
            batch = Batch({"image": patches.x_BHWC}, {}, samples, int(samples[0]) // self._per_epoch, True)
            batch.stall_seconds = patches.stall_seconds
            self.epoch, self.position = divmod(int(samples[-1]) + 1, self._per_epoch)
            self.meter.samples += len(samples)
            self.meter.batches += 1
            self.meter.stall_seconds += patches.stall_seconds
            yield batch
            batch.release()

    @property
    def _per_epoch(self) -> int:
        return self._feed.samples_per_epoch

    def close(self) -> None:
        """Stop its threads and give its memory back."""
        self._stream.close()

"""Patches cut from rasters, for `caudal.stream`: a block is decoded once, however many patches it feeds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cached_property

import numpy as np

from caudal.core.errors import DoesNotFit, UsageError
from caudal.core.events import Sink
from caudal.core.messages import _
from caudal.core.units import MIB, Bytes
from caudal.data.batches import Batch
from caudal.data.broken import Broken
from caudal.data.chunk_reader import ChunkReader, OpenFiles
from caudal.data.chunks import Cutter
from caudal.data.classes import Classes
from caudal.data.passes import Pass
from caudal.data.patch_quarantine import PatchQuarantine
from caudal.data.sample_stream import Meter
from caudal.data.shuffle_quality import effective_share
from caudal.data.steps import Rank
from caudal.data.stream import PatchStream, StreamSize
from caudal.memory.arena import Arena
from caudal.runs.feed import StreamPlan
from caudal.runs.patch_set import PatchSet

_MOST_OPEN = 256
_CHUNK_COPIES = 2  # a chunk while it is decoded, and while its holes are filled
_MASK_COPIES = 2  # the same of its mask, while values become class numbers
_LEAST_THREADS = 2  # those whose scratch is set aside before the order is decided
_OWN_BYTES = 4 * MIB  # libraries that come with the first read, threads: measured
_ORDER_BYTES = 96  # of each patch of an epoch, while the epoch is laid out


class PatchFeed:
    """Square patches of `patch_px`, as many pixels an epoch as the rasters have.

    Field `image` (B, P, P, bands) in the rasters' own units; with masks, field `mask` (B, P, P) of class
    numbers (uint8). A batch may reach over two epochs.
    """

    def __init__(
        self,
        rasters: PatchSet,
        patch_px: int,
        batch: int,
        ram: Bytes,
        seed: int,
        threads: int,
        rank: Rank,
        broken_limit: float,
        events: Sink,
    ) -> None:
        """Cut the rasters, and see what fits into `ram`.

        Raises:
            DoesNotFit: a batch and two chunks do not.
            TooManyBroken: more than `broken_limit` of the files cannot be read.
            UsageError: a rank would get no patch of a batch.
        """
        if batch < rank.world:
            raise UsageError(
                _("A batch of {batch} patches cannot be dealt out to {world} ranks.").format(
                    batch=batch, world=rank.world
                ),
                _("Give a batch_size of at least one patch a rank; it is that of all ranks together."),
            )
        self.seed, self.batch, self.has_masks = seed, batch, rasters.classes is not None
        self._set, self._index, self._rank = rasters, rasters.index, rank
        self._ram, self._wanted_threads = ram, threads
        self._cutter = Cutter(self._index, tuple(range(len(self._index))), patch_px, seed)
        self._quarantine = PatchQuarantine(self._cutter, broken_limit, events, rasters.unreadable)
        self.samples_per_epoch = self._cutter.samples
        self.fit(0)

    @property
    def digest(self) -> str:
        """See `Feed.digest`; another cut into patches or batches is another set."""
        digest = hashlib.blake2b(digest_size=8)
        index = self._index
        for column in (index.images.blob, index.masks.blob, index.height, index.width, index.bytes):
            digest.update(column.tobytes())
        digest.update(f"{self._cutter.patch_px} {self.batch}".encode())
        return digest.hexdigest()

    @property
    def broken(self) -> list[Broken]:
        """See `Feed.broken`."""
        return self._quarantine.broken

    def fit(self, open_blocks: int) -> None:
        """See `Feed.fit`.

        How many blocks are open decides the order, and follows neither from the ranks nor from the threads:
        patches that wait may take three quarters of what two threads leave, further threads the rest.
        """
        most = max(2, min(_MOST_OPEN, len(self._cutter.most_patches)))
        low, high = (open_blocks, open_blocks) if open_blocks else (2, most)
        held = self._own_bytes + _LEAST_THREADS * self._scratch_bytes
        needed = held + self._arena_bytes(low)
        if needed > self._ram:
            raise DoesNotFit(
                _("The stream needs at least {least}, and {ram} were given.").format(
                    least=Bytes(needed), ram=self._ram
                ),
                _("Give that much with ram=, or smaller patches or batches."),
                least=needed,
            )
        while low < high:
            middle = (low + high + 1) // 2
            fits = 4 * self._arena_bytes(middle) <= 3 * (self._ram - held)
            low, high = (middle, high) if fits else (low, middle - 1)
        self.open_blocks = low
        self.arena_bytes = Bytes(self._arena_bytes(low, self._rank.world))
        room = int(self._ram) - self._own_bytes - self.arena_bytes
        self._threads = min(self._wanted_threads, room // self._scratch_bytes)

    def _arena_bytes(self, open_blocks: int, world: int = 1) -> int:
        return int(StreamSize.of(self._cutter, self.batch, open_blocks, world=world).arena_bytes)

    @property
    def _own_bytes(self) -> int:
        return _OWN_BYTES + _ORDER_BYTES * self.samples_per_epoch

    @cached_property
    def _scratch_bytes(self) -> int:
        """What a thread holds while it decodes the largest chunk."""
        shapes = (self._cutter.chunk_shape(i) for i in range(len(self._index)))
        pixels = max(high * wide for high, wide in shapes)
        masks = _MASK_COPIES * (self._set.mask_bytes + 1) * pixels if self.has_masks else 0
        plain = all(lay.is_plain and lay.dtype == self._index.dtype for lay in self._index.layouts)
        # Another order or type of the bands takes one more copy.
        return (_CHUNK_COPIES + (not plain)) * self._cutter.largest_bytes + masks

    def plan(self) -> StreamPlan:
        """See `Feed.plan`."""
        side = self._cutter.patch_px
        # The order of patches takes as even a share of each open chunk as that of blocks does.
        ends = np.cumsum(self._cutter.cut(0).patches)
        share = effective_share(ends, self.batch, self.open_blocks, 1.0)
        fields = [f"image {self._index.dtype}[{side}, {side}, {self._index.bands}]"]
        if self.has_masks:
            fields.append(f"mask uint8[{side}, {side}]")
        return StreamPlan(
            self.samples_per_epoch,
            tuple(fields),
            Bytes(self._index.decoded_bytes + (self._index.pixels if self.has_masks else 0)),
            self._ram,
            self.arena_bytes,
            self.batch,
            self.open_blocks,
            self.batch * share,
            None,
            self._threads,
            self._set.notes,
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
        return epochs * self.samples_per_epoch // self.batch

    def run(self, epoch: int, position: int, epochs: int, shared: bool = False) -> Pass:
        """See `Feed.run`."""
        return _Patches(self, epoch, position, epochs, shared)

    def open(self, start: int, stop: int, arena: Arena) -> PatchStream:
        """The batches `start` … `stop` - 1, in an arena of `arena_bytes`."""
        fill = np.zeros((len(self._index.layouts), self._index.bands), np.float32)
        reader = ChunkReader(self._index, self._set.classes or Classes(values=(0,)), fill, OpenFiles())
        return PatchStream(
            self._cutter,
            reader,
            arena,
            batch=self.batch,
            open_chunks=self.open_blocks,
            threads=self._threads,
            start=start,
            stop=stop,
            rank=self._rank,
            quarantine=self._quarantine,
        )


class _Patches:
    """A pass over the patches."""

    def __init__(self, feed: PatchFeed, epoch: int, position: int, epochs: int, shared: bool) -> None:
        self.epoch, self.position, self.meter = epoch, position, Meter()
        self._feed = feed
        self._begun = (epoch * feed.samples_per_epoch + position) // feed.batch
        self.arena = Arena(feed.arena_bytes, shared)
        self._stream = feed.open(self._begun, feed.batches(epochs), self.arena)

    def __iter__(self) -> Iterator[Batch]:
        feed, per_epoch = self._feed, self._feed.samples_per_epoch
        for number, patches in enumerate(self._stream, self._begun):
            fields = {"image": patches.x_BHWC} | ({"mask": patches.y_BHW} if feed.has_masks else {})
            # Epoch and position are those of all ranks.
            batch = Batch(fields, {}, patches.sample_B, number * feed.batch // per_epoch, True)
            batch.stall_seconds = patches.stall_seconds
            self.epoch, self.position = divmod((number + 1) * feed.batch, per_epoch)
            self.meter.samples += batch.size
            self.meter.batches += 1
            self.meter.stall_seconds += patches.stall_seconds
            yield batch
            batch.release()

    def close(self) -> None:
        """Stop its threads and give its memory back."""
        self._stream.close()

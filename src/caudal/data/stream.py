"""The stream: batches of patches in a fixed order, decoded by threads into an arena of fixed size.

Flow of a patch: chunk (decoded once, by one thread) → slot in the arena → batch. Slots are granted in
the order in which the chunks are visited, and there are enough of them that the next batch can always
be completed (`order.slots_needed`), so the stream cannot wait for itself. The state is the number of
batches that were handed out. Which chunks a rank visits says `visits.py`; what becomes of broken ones,
`patch_quarantine.py`.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from caudal.core.units import Bytes
from caudal.data.chunk_reader import ChunkReader, cut_patch
from caudal.data.chunks import Cutter
from caudal.data.order import slots_needed
from caudal.data.patch_quarantine import PatchQuarantine, Piece, read_piece
from caudal.data.steps import Rank
from caudal.data.visits import Visit, Visits
from caudal.memory.arena import ALIGNMENT_BYTES, Arena, ArenaClosed, Slots

_BATCH_BUFFERS = 2  # the batch in use, and the one being put together
AHEAD = 2  # batches that are read ahead where nobody says otherwise
_TURN_BATCHES = 8  # what is decoded in a turn, where decoding and the consumer take turns


@dataclass(frozen=True)
class Batch:
    """A rank's patches of one optimizer step; views into the arena, good until the next batch.

    `x_BHWC` in the stream's dtype, `y_BHW` class numbers (uint8), `layout_B` and `sample_B` (int64): the
    layout of each patch, and its number in the run. `stall_seconds` is how long it was waited for.
    """

    x_BHWC: npt.NDArray[Any]
    y_BHW: npt.NDArray[np.uint8]
    layout_B: npt.NDArray[np.int64]
    sample_B: npt.NDArray[np.int64]
    stall_seconds: float

    @property
    def size(self) -> int:
        """Patches."""
        return len(self.sample_B)

    @property
    def nbytes(self) -> int:
        """What its patches take."""
        return self.x_BHWC.nbytes + self.y_BHW.nbytes


@dataclass(frozen=True)
class StreamSize:
    """What a stream of one rank holds: patches that wait, its share of a `batch`, the bytes of it all."""

    slots: int
    patch_bytes: int
    batch: int

    @classmethod
    def of(
        cls, cutter: Cutter, batch: int, open_chunks: int, ahead: int = AHEAD, world: int = 1
    ) -> StreamSize:
        """Enough slots for the order to be kept, and `ahead` batches or one chunk of reading ahead.

        `batch` is that of all ranks together. Of the patches that wait for later batches a rank has its
        share on average, but any of them could be its own: room is kept for all.
        """
        per_pixel = cutter.index.dtype.itemsize * cutter.index.bands + 1
        most, share = cutter.most_patches, -(-batch // world)
        slots = slots_needed(most, open_chunks, share) + max(ahead * share, most[0])
        return cls(slots, cutter.patch_px**2 * per_pixel, share)

    @property
    def arena_bytes(self) -> Bytes:
        """What the arena must hold."""
        patches = self.slots + _BATCH_BUFFERS * self.batch
        return Bytes(patches * self.patch_bytes + 2 * (1 + _BATCH_BUFFERS) * ALIGNMENT_BYTES)


class PatchStream:
    """Batches `start` … `stop` of a run, as an iterator. Use it in a `with`, or `close` it.

    With `overlap` the threads decode while the consumer works, which is right when its model has a device of
    its own. Without, they take turns: when a batch is missing, all threads decode some batches ahead, and
    rest while the consumer works. On a CPU that is faster, because the threads of a model work in step and
    all of them lose what one of them loses.

    `batch` is that of all ranks together, of which `rank` gets its share. A chunk that cannot be read ends
    the stream with its error, unless a `quarantine` replaces it.
    """

    def __init__(
        self,
        cutter: Cutter,
        reader: ChunkReader,
        arena: Arena,
        *,
        batch: int,
        open_chunks: int,
        threads: int,
        stop: int,
        start: int = 0,
        ahead: int = AHEAD,
        overlap: bool = True,
        rank: Rank | None = None,
        quarantine: PatchQuarantine | None = None,
    ) -> None:
        rank = rank or Rank()
        self._cutter, self._reader = cutter, reader
        self._read: Callable[[ChunkReader, Visit], Piece] = (
            quarantine.read if quarantine else partial(read_piece, cutter)
        )
        self._visits = Visits(cutter, open_chunks, batch, rank)
        self._share = len(self._visits.samples_of(0))
        self._position, self._stop = start, stop
        side, index = cutter.patch_px, cutter.index
        self._x_shape = (side, side, index.bands)
        size = StreamSize.of(cutter, batch, open_chunks, ahead, rank.world)
        self._waiting = self._patches(arena, size.slots)
        self._slots = Slots(arena, size.slots)
        self._buffers = itertools.cycle([self._patches(arena, self._share) for _ in range(_BATCH_BUFFERS)])
        self._ready: dict[int, int] = {}  # sample number → slot
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        self._closed = False
        self._overlap = overlap
        self._gate = threading.Event()  # open while threads may begin another chunk
        if overlap:
            self._gate.set()
        self._decoding = self._without_room = self._ended = 0  # threads, under `_changed`
        self._work = self._visits.between(start, stop)
        self._next_visit = threading.Lock()
        self._threads = [
            threading.Thread(target=self._decode, name=f"caudal-decode-{k}", daemon=True)
            for k in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def __len__(self) -> int:
        return self._stop - self._position

    def state_dict(self) -> dict[str, int]:
        """The position, which is all the state there is."""
        return {"position": self._position}

    def _patches(self, arena: Arena, count: int) -> tuple[npt.NDArray[Any], npt.NDArray[np.uint8]]:
        """Room for patches: `x_NHWC` and `y_NHW`."""
        dtype, pixels = self._cutter.index.dtype, count * self._x_shape[0] ** 2
        x = arena.lease(pixels * self._x_shape[2] * dtype.itemsize)
        y = arena.lease(pixels)
        return x.array((count, *self._x_shape), dtype), y.array((count, *self._x_shape[:2]), np.uint8)

    def _decode(self) -> None:
        try:
            while True:
                self._gate.wait()
                with self._next_visit:  # slots are granted in the order of visits, or it could deadlock
                    visit = next(self._work, None)
                    if visit is None:
                        break
                    self._note(without_room=1)
                    slots = self._slots.take(visit.needed)
                    self._note(without_room=-1, decoding=1)
                self._fill(visit, slots)
                self._note(decoding=-1)
            self._note(ended=1)
        except ArenaClosed:
            return
        except BaseException as error:  # handed to the consumer, who raises it
            with self._changed:
                self._error = self._error or error
                self._changed.notify_all()

    def _note(self, decoding: int = 0, without_room: int = 0, ended: int = 0) -> None:
        with self._changed:
            self._decoding += decoding
            self._without_room += without_room
            self._ended += ended
            self._changed.notify_all()

    def _fill(self, visit: Visit, slots: list[int]) -> None:
        piece = self._read(self._reader, visit)
        layout = int(self._cutter.index.layout[piece.image])
        x_NHWC, y_NHW = self._waiting
        done = {}
        free = iter(slots)
        places = zip(piece.rows.tolist(), piece.cols.tolist(), visit.samples.tolist(), strict=True)
        for row, col, sample in places:
            if sample >= 0:
                slot = next(free)
                cut_patch(piece.chunk, row, col, x_NHWC[slot], y_NHW[slot])
                done[sample] = slot | (layout << 32)
        with self._changed:
            self._ready.update(done)
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Batch]:
        while self._position < self._stop:
            batch = self._next()
            self._position += 1
            yield batch

    def _next(self) -> Batch:
        samples = self._visits.samples_of(self._position)
        began = time.perf_counter()
        with self._changed:
            if not self._complete(samples):
                self._wait(samples)
            slots = [self._ready.pop(int(s)) for s in samples]
        stall_seconds = time.perf_counter() - began
        x, y = next(self._buffers)
        numbers = [slot & 0xFFFFFFFF for slot in slots]
        for waiting, buffer in zip(self._waiting, (x, y), strict=True):
            np.take(waiting, numbers, axis=0, out=buffer, mode="clip")  # any other mode makes a copy first
        self._slots.give(numbers)
        layouts = np.array([slot >> 32 for slot in slots], np.int64)
        return Batch(x, y, layouts, samples, stall_seconds)

    def _complete(self, samples: npt.NDArray[np.int64]) -> bool:
        return all(int(s) in self._ready for s in samples)

    def _enough_ahead(self) -> bool:
        nobody_can = self._ended == len(self._threads) or bool(self._without_room)
        full = nobody_can and not self._decoding
        return self._overlap or full or len(self._ready) >= _TURN_BATCHES * self._share

    def _wait(self, samples: npt.NDArray[np.int64]) -> None:
        """Wait, with `_changed` held, until the batch is there; without overlap, until the turn is over."""
        self._gate.set()
        while not (self._complete(samples) and self._enough_ahead()):
            self._raise_or_wait()
        if not self._overlap:
            self._gate.clear()
            while self._decoding:
                self._raise_or_wait()

    def _raise_or_wait(self) -> None:
        if self._error:
            raise self._error
        assert not self._closed, "the stream was closed"
        self._changed.wait()

    def close(self) -> None:
        """Stop the threads and wait for them; safe to call twice."""
        self._closed = True
        self._gate.set()
        self._slots.close()
        with self._changed:
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        self._reader.files.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

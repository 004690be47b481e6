"""Decodes tiles ahead of the model and lays them out as batches.

Shapes: N tiles, H rows, W columns, C bands.

Neighbouring tiles share pixels, so what is read is not tiles but pieces of chunks. A chunk is as wide as the
grid's step and as high as a row of tiles; `bands` says how it is cut into pieces. Each piece is decoded once
and copied into the tiles that need it. Those of a fixed number of chunks are decoded ahead, whatever the
raster's size.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from caudal.core.errors import UnreadableFile
from caudal.core.geometry import Window, round_up
from caudal.data.readers.base import Header, Pixels
from caudal.inference.bands import Bands
from caudal.inference.jobs import Job, finish, share
from caudal.inference.tiles import Tile, TileGrid

Valid = npt.NDArray[np.bool_]
BATCHES_AHEAD, LEAST_AHEAD = 2, 4


class WindowReader(Protocol):
    """The part of a `Source`, or of a `Spool` before it, that is needed here."""

    header: Header

    def read(self, window: Window) -> Pixels:
        """The pixels of a window; from several threads at once."""
        ...


@dataclass(frozen=True, slots=True)
class Fed:
    """What became of one tile: pixels in a `slot` of the batch, or none to speak of.

    `slot` is `None` where no pixel of the tile is valid, or where it could not be read (`failure` says why).
    `valid_HW` covers `tile.read`; `None` when all of it is valid, and for tiles without a slot.
    """

    tile: Tile
    slot: int | None
    valid_HW: Valid | None = None
    failure: str = ""


@dataclass(slots=True)
class Batch:
    """Tiles in the grid's order; those with a slot all have one shape, padded to the model's stride.

    `x_NHWC` is in the file's dtype; beyond the raster's edge it repeats the last row and column. `valid_NHW`
    is `None` when every pixel of it is valid.
    """

    x_NHWC: npt.NDArray[Any] | None = None
    valid_NHW: Valid | None = None
    tiles: list[Fed] = field(default_factory=list)


class _Chunks:
    """Chunks by number, row-major, decoded ahead by a pool, piece by piece."""

    def __init__(
        self, reader: WindowReader, bands: Bands, ahead: int, overlap: bool, pool: Executor | None
    ) -> None:
        self._reader, self._bands, self._grid, self._pool = reader, bands, bands.grid, pool
        self._ahead, self._overlap = ahead, overlap
        self._held: dict[tuple[int, int], Job[Pixels]] = {}  # by band and column of the grid
        self._turn: list[Job[Pixels]] = []
        self._next = self._passed = 0

    def get(self, tile: Tile) -> list[tuple[Window, Pixels]]:
        """The pieces that hold a pixel of the tile and where they lie, waiting for them.

        Tiles come in the grid's order; what only those before needed is forgotten.

        Raises:
            UnreadableFile: one of them cannot be read.
        """
        step, last = self._grid.core, self._grid.cols - 1
        first, final = min(tile.read.col // step, last), min((tile.read.col_end - 1) // step, last)
        start = tile.row_index * self._grid.cols
        stop = start + final + 1
        self._forget(start + first)
        if self._overlap or self._next <= stop:
            self._ask(min(len(self._grid), stop + self._ahead))
        keys = [(band, col) for col in range(first, final + 1) for band in self._bands.of(tile.row_index)]
        return [(self._window(*key), self._held[key].result()) for key in keys]

    def _window(self, band: int, col: int) -> Window:
        row, row_end = self._bands.rows(band)
        start, end = self._grid.finish_cols(col)
        return Window(row, start, row_end - row, end - start)

    def _forget(self, number: int) -> None:
        """Let go of the chunks before that one, but for what the next row of tiles needs."""
        for row, col in (divmod(one, self._grid.cols) for one in range(self._passed, number)):
            following = self._bands.of(row + 1)
            for band in self._bands.of(row):
                if band not in following:
                    del self._held[band, col]
        self._passed = max(self._passed, number)

    def _ask(self, stop: int) -> None:
        """Have the pieces of all chunks before that one decoded."""
        chunks = [divmod(number, self._grid.cols) for number in range(self._next, stop)]
        # A dictionary, for rows may share a band.
        keys = {(band, col): None for row, col in chunks for band in self._bands.of(row)}
        fresh = [key for key in keys if key not in self._held]
        jobs = share(self._pool, [partial(self._reader.read, self._window(*key)) for key in fresh])
        self._held.update(zip(fresh, jobs, strict=True))
        self._turn += jobs
        self._next = max(self._next, stop)

    def settle(self) -> None:
        """Where decoding and the model take turns: end this turn."""
        if not self._overlap:
            finish(self._turn)
        self._turn = []


def chunks_ahead(batch: int, threads: int, overlap: bool) -> int:
    """How many chunks are decoded before they are needed.

    In turns with the model, as many as keep the threads busy for a turn, of two pieces each; one at least, so
    that a batch is laid out while the next chunk is decoded.
    """
    return max(BATCHES_AHEAD * batch, LEAST_AHEAD) if overlap else min(LEAST_AHEAD, max(1, threads // 2))


def feed(
    reader: WindowReader, bands: Bands, batch: int, threads: int, overlap: bool = True
) -> Generator[Batch]:
    """The tiles of a grid in batches of at most `batch` for the model, decoded by `threads` threads.

    With `overlap` that goes on while the model runs, which is right when the model has a device of its own.
    Without, decoding and the model take turns on the same processors: a model whose threads work in step
    loses all of them while one of them waits for a processor.

    No more than `chunks_ahead` are decoded ahead. A batch's arrays are its own: nothing here touches them
    again, and whoever takes it should let go of them as soon as the model is through.
    """
    # Between two turns the thread that asks for a batch takes part.
    workers = threads if overlap else threads - 1
    pool = ThreadPoolExecutor(workers, thread_name_prefix="caudal-tiles") if workers else None
    chunks = _Chunks(reader, bands, chunks_ahead(batch, threads, overlap), overlap, pool)
    try:
        for some in _batches(reader, chunks, bands.grid, batch):
            chunks.settle()
            yield some
    finally:
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)


def _batches(reader: WindowReader, chunks: _Chunks, grid: TileGrid, batch: int) -> Iterator[Batch]:
    current, used = Batch(), 0
    for tile in grid:
        shape = _padded(tile, grid.multiple)
        other = current.x_NHWC is not None and current.x_NHWC.shape[1:3] != shape
        # Tiles without a slot are nearly free, yet a batch must not wait for ever on an empty half of the
        # raster.
        if other or used == batch or len(current.tiles) >= 4 * batch:
            yield _trim(current, used)
            current, used = Batch(), 0
        fed = _lay(reader, chunks, tile, current, used, batch, shape)
        used += fed.slot is not None
        current.tiles.append(fed)
    yield _trim(current, used)


def _padded(tile: Tile, multiple: int) -> tuple[int, int]:
    return round_up(tile.read.height, multiple), round_up(tile.read.width, multiple)


def _trim(batch: Batch, used: int) -> Batch:
    """The same batch without the slots that nothing was put into."""
    batch.x_NHWC = None if batch.x_NHWC is None or not used else batch.x_NHWC[:used]
    batch.valid_NHW = None if batch.valid_NHW is None or not used else batch.valid_NHW[:used]
    return batch


def _lay(
    reader: WindowReader,
    chunks: _Chunks,
    tile: Tile,
    batch: Batch,
    slot: int,
    size: int,
    shape: tuple[int, int],
) -> Fed:
    """Put the tile into that slot of the batch, unless there is nothing to put."""
    try:
        pieces = chunks.get(tile)
    except UnreadableFile:
        # The broken block may be in a part of a piece that this tile does not need.
        try:
            pieces = [(tile.read, reader.read(tile.read))]
        except UnreadableFile as error:
            return Fed(tile, None, failure=error.message)
    valid_HW = _join_valid(tile.read, pieces)
    if valid_HW is not None and not valid_HW.any():
        return Fed(tile, None)
    header = reader.header
    if batch.x_NHWC is None:
        batch.x_NHWC = np.empty((size, *shape, header.bands), header.dtype)
    height, width = tile.read.height, tile.read.width
    for window, pixels in pieces:
        part = window.intersect(tile.read)
        batch.x_NHWC[slot][part.within(tile.read)] = pixels.x_HWC[part.within(window)]
    _repeat_edge(batch.x_NHWC[slot], height, width)
    if valid_HW is not None:
        if batch.valid_NHW is None:
            batch.valid_NHW = np.ones((size, *shape), np.bool_)
        batch.valid_NHW[slot, :height, :width] = valid_HW
        _repeat_edge(batch.valid_NHW[slot], height, width)
    return Fed(tile, slot, valid_HW)


def _join_valid(read: Window, pieces: list[tuple[Window, Pixels]]) -> Valid | None:
    if all(pixels.valid_HW is None for _, pixels in pieces):
        return None
    valid_HW = np.empty((read.height, read.width), np.bool_)
    for window, pixels in pieces:
        part = window.intersect(read)
        valid_HW[part.within(read)] = (
            True if pixels.valid_HW is None else pixels.valid_HW[part.within(window)]
        )
    return None if valid_HW.all() else valid_HW


def _repeat_edge(x: npt.NDArray[Any], height: int, width: int) -> None:
    """Fill what lies beyond the raster with its last column and row."""
    x[:height, width:] = x[:height, width - 1 : width]
    x[height:] = x[height - 1 : height]

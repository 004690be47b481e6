"""Decodes tiles ahead of the model and lays them out as batches.

Shapes: N tiles, H rows, W columns, C bands.

Neighbouring tiles share pixels, so what is read is not tiles but chunks: for a row of tiles, the part of the
raster that one tile completes, as wide as the grid's step and as high as the tiles. Each is decoded once and
copied into the two or three tiles that need it. A fixed number is decoded ahead, whatever the raster's size.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from caudal.core.errors import UnreadableFile
from caudal.core.geometry import Window, round_up
from caudal.data.readers.base import Header, Pixels
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
    """Chunks by number, row-major, decoded ahead by a pool."""

    def __init__(
        self, reader: WindowReader, grid: TileGrid, ahead: int, overlap: bool, pool: ThreadPoolExecutor
    ) -> None:
        self._reader, self._grid, self._ahead, self._pool = reader, grid, ahead, pool
        self._overlap = overlap
        self._pending: dict[int, Future[Pixels]] = {}
        self._next = 0

    def window(self, number: int) -> Window:
        row_index, col_index = divmod(number, self._grid.cols)
        rows = self._grid.tile(row_index, 0).read
        col, col_end = self._grid.finish_cols(col_index)
        return Window(rows.row, col, rows.height, col_end - col)

    def numbers(self, tile: Tile) -> range:
        """The chunks that hold a pixel of the tile."""
        step, last = self._grid.core, self._grid.cols - 1
        start = tile.row_index * self._grid.cols
        first, final = tile.read.col // step, (tile.read.col_end - 1) // step
        return range(start + min(first, last), start + min(final, last) + 1)

    def get(self, numbers: range) -> list[tuple[Window, Pixels]]:
        """Those chunks and where they lie, waiting for them; forgets the ones before.

        Raises:
            UnreadableFile: one of them cannot be read.
        """
        for number in [known for known in self._pending if known < numbers.start]:
            del self._pending[number]
        if self._overlap or self._next < numbers.stop:
            while self._next < min(len(self._grid), numbers.stop + self._ahead):
                self._pending[self._next] = self._pool.submit(self._reader.read, self.window(self._next))
                self._next += 1
            if not self._overlap:
                wait(self._pending.values())
        return [(self.window(number), self._pending[number].result()) for number in numbers]


def chunks_ahead(batch: int) -> int:
    """How many chunks are decoded before they are needed."""
    return max(BATCHES_AHEAD * batch, LEAST_AHEAD)


def feed(
    reader: WindowReader, grid: TileGrid, batch: int, threads: int, overlap: bool = True
) -> Generator[Batch]:
    """The tiles of `grid` in batches of at most `batch` for the model, decoded by `threads` threads.

    With `overlap` that goes on while the model runs, which is right when the model has a device of its own.
    Without, decoding and the model take turns on the same processors: a model whose threads work in step
    loses all of them while one of them waits for a processor.

    No more than `chunks_ahead` are decoded ahead. A batch's arrays are its own: nothing here touches them
    again, and whoever takes it should let go of them as soon as the model is through.
    """
    with ThreadPoolExecutor(threads, thread_name_prefix="caudal-tiles") as pool:
        chunks = _Chunks(reader, grid, chunks_ahead(batch), overlap, pool)
        try:
            yield from _batches(reader, chunks, grid, batch)
        finally:
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
    numbers = chunks.numbers(tile)
    try:
        pieces = chunks.get(numbers)
    except UnreadableFile:
        # The broken block may be in a part of the chunk that this tile does not need.
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

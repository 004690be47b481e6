"""Joins the scores of overlapping tiles, and gives out each region once it is complete.

Shapes: C channels, H rows, W columns; O is the overlap of neighbours in px.

In an overlap, one tile fades out while the next fades in. With a Gaussian on each end of the overlap the
weights are g₁/(g₁+g₂) and its complement, so they sum to 1 by construction and no sum of weights has to be
kept. Beside the tile at hand only two strips are held: the right O columns of the tile before, and O rows
across the raster, of half floats where they are many: 2·C·O·W bytes. That strip is all that grows with the
raster.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from caudal.core.geometry import Window
from caudal.core.units import MIB
from caudal.inference.tiles import Tile, TileGrid

Scores = npt.NDArray[np.float32]

# How far the Gaussian has fallen at the far end of the overlap, as an exponent: the weight there is e⁻⁶ =
# 0.25 %, little enough to hide what the model's padding does at a tile's edge.
FALL = 6.0

# Rows across the raster that take no more than this are held as they are. Turning them into half floats and
# back would be more than half of what blending costs.
WHOLE_FLOATS_BYTES = 4 * MIB


def fade_in(overlap: int) -> npt.NDArray[np.float32]:
    """Weights of the tile that begins, over the `overlap` px that it shares with the one before; rising.

    The one before has the complement, `1 - fade_in(overlap)`, which is the same curve mirrored.
    """
    place = (np.arange(overlap) + 0.5) / max(1, overlap)
    before, after = np.exp(-FALL * place**2), np.exp(-FALL * (1 - place) ** 2)
    weights: npt.NDArray[np.float32] = (after / (before + after)).astype(np.float32)
    return weights


def strip_dtype(grid: TileGrid, channels: int) -> np.dtype[np.float16] | np.dtype[np.float32]:
    """How the rows across the raster are held."""
    small = 4 * channels * grid.overlap * grid.width <= WHOLE_FLOATS_BYTES
    return np.dtype(np.float32) if small else np.dtype(np.float16)


def weights_of(grid: TileGrid, tile: Tile) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """The weights of a tile's rows and of its columns; a pixel's weight is their product.

    This is the plain truth that `Accumulator` applies strip by strip.
    """
    return (
        _line(tile.read.height, grid.overlap, tile.row_index, grid.rows),
        _line(tile.read.width, grid.overlap, tile.col_index, grid.cols),
    )


def _line(size: int, overlap: int, index: int, count: int) -> npt.NDArray[np.float32]:
    line = np.ones(size, dtype=np.float32)
    if overlap and index > 0:
        line[:overlap] *= fade_in(overlap)
    if overlap and index < count - 1:
        line[size - overlap :] *= 1 - fade_in(overlap)
    return line


class Accumulator:
    """Takes the tiles of `grid` in its order, and gives back the complete scores of `tile.finish`."""

    def __init__(self, grid: TileGrid, channels: int) -> None:
        self._grid = grid
        self._fade = fade_in(grid.overlap)
        self._right: Scores | None = None
        self._below: npt.NDArray[np.float16] | Scores | None = None
        self._scale = np.zeros(grid.cols, dtype=np.float32)
        if grid.overlap and grid.rows > 1:
            self._below = np.zeros((channels, grid.overlap, grid.width), strip_dtype(grid, channels))

    @property
    def held_bytes(self) -> int:
        """Bytes of the strips that are held between two tiles."""
        below = 0 if self._below is None else self._below.nbytes
        return below + (0 if self._right is None else self._right.nbytes)

    def add(self, tile: Tile, scores_CHW: Scores | None) -> Scores | None:
        """Blend a tile in; the scores of `tile.finish`, float32, complete.

        `scores_CHW` covers `tile.read` and is written into: the caller has given it away, and what comes back
        may be a view of it. `None` stands for a tile without scores; it adds nothing, and `None` comes back.
        Only pixels that no such tile reads are complete then.
        """
        if not self._grid.overlap:
            return None if scores_CHW is None else scores_CHW[(slice(None), *tile.finish.within(tile.read))]
        if scores_CHW is None:
            self._right = None
            self._scale[tile.col_index] = 0
            return None
        if not scores_CHW.flags.writeable:
            scores_CHW = scores_CHW.copy()
        self._weigh(tile, scores_CHW)
        return self._join(tile, scores_CHW)

    def _weigh(self, tile: Tile, scores_CHW: Scores) -> None:
        """Multiply by the tile's weights; they are 1 outside the strips."""
        grid, overlap = self._grid, self._grid.overlap
        if tile.row_index > 0:
            scores_CHW[:, :overlap] *= self._fade[:, None]
        if tile.row_index < grid.rows - 1:
            scores_CHW[:, -overlap:] *= (1 - self._fade)[:, None]
        if tile.col_index > 0:
            scores_CHW[:, :, :overlap] *= self._fade
        if tile.col_index < grid.cols - 1:
            scores_CHW[:, :, -overlap:] *= 1 - self._fade

    def _join(self, tile: Tile, scores_CHW: Scores) -> Scores:
        """Add what is held from the left and from above; hold what the next tiles need."""
        overlap, finish = self._grid.overlap, tile.finish
        if tile.col_index > 0 and self._right is not None:
            scores_CHW[:, :, :overlap] += self._right
        self._right = scores_CHW[:, :, finish.width :].copy() if finish.width < tile.read.width else None
        done_CHW = scores_CHW[:, :, : finish.width]
        if tile.row_index > 0:
            self._take(finish, tile.col_index, done_CHW[:, :overlap])
        if finish.height < tile.read.height:
            self._keep(finish, tile.col_index, done_CHW[:, finish.height :])
        return done_CHW[:, : finish.height]

    def _take(self, finish: Window, col_index: int, top_COW: Scores) -> None:
        assert self._below is not None
        scale, held_COW = self._scale[col_index], self._below[:, :, finish.col : finish.col_end]
        if scale:
            top_COW += held_COW if held_COW.dtype == np.float32 else held_COW.astype(np.float32) * scale

    def _keep(self, finish: Window, col_index: int, bottom_COW: Scores) -> None:
        assert self._below is not None
        held_COW = self._below[:, :, finish.col : finish.col_end]
        if held_COW.dtype == np.float32:
            self._scale[col_index] = 1
            held_COW[...] = bottom_COW
            return
        # Half floats end at 65504 and thin out below 6e-5. Scaled by the strip's own peak, scores of any size
        # keep 11 bits.
        peak = np.float32(max(bottom_COW.max(), -bottom_COW.min()))
        self._scale[col_index] = peak
        if peak:
            held_COW[...] = bottom_COW / peak

"""Scores a raster region by region: reads, runs the model, joins what overlaps; writes nothing.

Shapes: N tiles, H rows, W columns, C channels of scores. The model is a callable and stays one: what it is
made of, where it runs and how pixels are normalized is not known here.
"""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from caudal.core.errors import IncompleteOutput
from caudal.core.geometry import Window
from caudal.core.messages import _
from caudal.data.readers.base import Source
from caudal.inference.bands import Bands, bands_for
from caudal.inference.blend import Accumulator, Scores
from caudal.inference.feed import Batch, Fed, Valid, WindowReader, feed
from caudal.inference.spool import Spool, pays
from caudal.inference.symmetry import Forward, averaged
from caudal.inference.tiles import Tile, TileGrid


@dataclass(frozen=True, slots=True)
class Region:
    """Pixels that are complete: `scores_CHW` float32, `None` where nothing was predicted.

    `valid_HW` is `None` when every pixel has a prediction. `failure` says why the tile that completes this
    region could not be read; `lost_px` counts valid pixels given up because a neighbour could not.
    """

    window: Window
    scores_CHW: Scores | None
    valid_HW: Valid | None
    failure: str = ""
    lost_px: int = 0


def score_windows(
    source: Source,
    forward: Forward,
    grid: TileGrid,
    channels: int,
    *,
    batch: int = 1,
    threads: int = 1,
    overlap: bool = True,
    average_d4: bool = False,
    scratch: Path | None = None,
) -> Generator[Region]:
    """The scores of the raster, region by region, in the order of `grid`; every pixel is in one region.

    For whoever wants the numbers and no file. Takes `forward` as `predict_raster` does. Files with blocks
    larger than tiles are decoded into an unnamed file in the folder `scratch`; without it, again for every
    tile.
    """
    forward = averaged(forward) if average_d4 else forward
    joined, broken = Accumulator(grid, channels), _Broken(grid)
    with ExitStack() as stack:
        reader: WindowReader = source
        bands = bands_for(grid, source.header.block[0], source.header.pixel_bytes + 1)
        if scratch is not None and len(grid) > 1 and pays(source.header, grid.core):
            spool = Spool(source, grid.largest[0], scratch)
            stack.callback(spool.close)
            reader, bands = spool, Bands(grid, None)
        batches = stack.enter_context(closing(feed(reader, bands, batch, threads, overlap)))
        aside = stack.enter_context(ThreadPoolExecutor(1, "caudal-batches"))
        some = next(batches, None)
        while some is not None:
            scores_NCHW = _run(forward, some, channels)
            # The next batch is laid out while these scores are joined and whoever takes them works on them.
            coming = aside.submit(next, batches, None)
            _check(scores_NCHW, some)
            for fed in some.tiles:
                yield _region(fed, scores_NCHW, joined, broken)
            del scores_NCHW  # or they would still be held while the model runs
            some = coming.result()


def _run(forward: Forward, batch: Batch, channels: int) -> Scores | None:
    """The scores of a batch, whose pixels are let go of."""
    if batch.x_NHWC is None:
        return None
    count, height, width, _bands = batch.x_NHWC.shape
    scores_NCHW = forward(batch.x_NHWC, batch.valid_NHW)
    assert scores_NCHW.shape == (count, channels, height, width), (
        scores_NCHW.shape,
        batch.x_NHWC.shape,
        channels,
    )
    assert scores_NCHW.dtype == np.float32, scores_NCHW.dtype
    if not scores_NCHW.flags.writeable:
        scores_NCHW = scores_NCHW.copy()
    batch.x_NHWC = None
    return scores_NCHW


def _check(scores_NCHW: Scores | None, batch: Batch) -> None:
    """Refuse scores that are not finite where pixels are valid, and make others so.

    Raises:
        IncompleteOutput: the model gave no number.
    """
    # One sum is far cheaper than looking at each number, and is finite unless one of them is not.
    if scores_NCHW is not None and not np.isfinite(scores_NCHW.sum(dtype=np.float32)):
        _refuse_bad_numbers(scores_NCHW, batch)
    batch.valid_NHW = None


def _refuse_bad_numbers(scores_NCHW: Scores, batch: Batch) -> None:
    bad_NHW: Valid = np.logical_not(np.isfinite(scores_NCHW).all(axis=1))
    wrong_NHW = bad_NHW if batch.valid_NHW is None else bad_NHW & batch.valid_NHW
    for fed in batch.tiles:
        read = fed.tile.read
        if fed.slot is not None and wrong_NHW[fed.slot].any():
            raise IncompleteOutput(
                _("The model gave no number for {count} valid pixels at row {row}, column {col}.").format(
                    count=int(np.count_nonzero(wrong_NHW[fed.slot])), row=read.row, col=read.col
                ),
                _("Predict in float32, and check that the bands are those that the model was trained on."),
                row=read.row,
                col=read.col,
            )
    # Where no pixel is valid any number will do, as long as it stays a number when it is blended.
    np.nan_to_num(scores_NCHW, copy=False, nan=0.0, posinf=0.0, neginf=0.0)


class _Broken:
    """Remembers neighbours that could not be read: the strips that a tile shares with them are incomplete."""

    def __init__(self, grid: TileGrid) -> None:
        self._overlap = grid.overlap
        self._above: set[int] = set()
        self._here: set[int] = set()
        self._row = 0

    def note(self, tile: Tile, failed: bool) -> None:
        if tile.row_index != self._row:
            self._above, self._here, self._row = self._here, set(), tile.row_index
        if failed:
            self._here.add(tile.col_index)

    def cut(self, tile: Tile, valid_HW: Valid | None) -> tuple[Valid | None, int]:
        """What of `tile.finish` stays valid, and how many valid pixels that cost."""
        shared, col = self._overlap, tile.col_index
        strips = [
            (slice(0, shared), slice(None), col in self._above),
            (slice(None), slice(0, shared), col - 1 in self._here),
            (slice(0, shared), slice(0, shared), col - 1 in self._above),
        ]
        if not shared or not any(broken for *_where, broken in strips):
            return valid_HW, 0
        shape = (tile.finish.height, tile.finish.width)
        kept_HW = np.ones(shape, np.bool_) if valid_HW is None else valid_HW.copy()
        before = int(np.count_nonzero(kept_HW))
        for rows, cols, broken in strips:
            if broken:
                kept_HW[rows, cols] = False
        return kept_HW, before - int(np.count_nonzero(kept_HW))


def _region(fed: Fed, scores_NCHW: Scores | None, joined: Accumulator, broken: _Broken) -> Region:
    tile = fed.tile
    broken.note(tile, bool(fed.failure))
    if fed.slot is None:
        joined.add(tile, None)
        return Region(tile.finish, None, None, fed.failure)
    assert scores_NCHW is not None
    done_CHW = joined.add(tile, scores_NCHW[fed.slot, :, : tile.read.height, : tile.read.width])
    valid_HW = None if fed.valid_HW is None else fed.valid_HW[tile.finish.within(tile.read)]
    valid_HW, lost_px = broken.cut(tile, valid_HW)
    return Region(tile.finish, done_CHW, valid_HW, lost_px=lost_px)

"""Maps a raster through a model into a file, and proves that it covered all of it.

How scores come about is the matter of `scores`. What is held at once does not grow with the raster's height,
and with its width only by the strip that `blend` keeps; `working_bytes` says how much it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from caudal.core.errors import IncompleteOutput, UnreadableFile, UsageError
from caudal.core.events import Event, TileDone, Warned
from caudal.core.geometry import Window
from caudal.core.messages import _
from caudal.core.units import MIB
from caudal.data.readers.base import Source
from caudal.inference.bands import bands_for
from caudal.inference.blend import strip_dtype
from caudal.inference.blocks import Codec
from caudal.inference.encode import Output
from caudal.inference.feed import chunks_ahead
from caudal.inference.mosaic import MOST_THREADS, CogWriter, Georeference, disk_errors, writer_bytes
from caudal.inference.scores import Region, score_windows
from caudal.inference.symmetry import Forward
from caudal.inference.tiles import TileGrid


@dataclass(frozen=True, slots=True)
class FailedTile:
    """A region that became nodata because it could not be read."""

    window: Window
    reason: str


@dataclass(frozen=True, slots=True)
class PredictionSummary:
    """What was covered, in pixels; `lost_px` of the `valid_px` that were read lie beside a failed tile."""

    path: Path
    tiles: int
    tiles_without_data: int
    total_px: int
    valid_px: int
    predicted_px: int
    lost_px: int
    failed: tuple[FailedTile, ...]
    seconds: float


@dataclass(slots=True)
class _Count:
    """The books of one prediction."""

    tiles: int = 0
    finished_px: int = 0
    valid_px: int = 0
    predicted_px: int = 0
    lost_px: int = 0
    empty: int = 0
    failed: list[FailedTile] = field(default_factory=list)


def predict_raster(
    source: Source,
    forward: Forward,
    out: Path,
    grid: TileGrid,
    output: Output,
    *,
    batch: int = 1,
    threads: int = 1,
    overlap: bool = True,
    average_d4: bool = False,
    georeference: Georeference | None = None,
    codec: Codec = "deflate",
    events: Callable[[Event], None] | None = None,
) -> PredictionSummary:
    """Write what `forward` makes of `source` to a Cloud-Optimized GeoTIFF at `out`.

    `forward` takes `(x_NHWC, valid_NHW | None)`, the pixels in the file's dtype with H and W multiples of
    `grid.multiple`, and gives `scores_NCHW` (float32, same H and W), which it gives away: they are written
    into. It is called from this thread. `threads` decode ahead, beside the model or in
    turns with it (`overlap`, see `feed`). `average_d4` averages it over flips and
    quarter turns. Pixels that are not valid become nodata, as do tiles that cannot be read: those are in the
    summary, and each is a `Warned` event.

    Raises:
        UsageError: `grid` is not for a raster of this size, or the output's folder is not there.
        UnreadableFile: no tile at all could be read.
        IncompleteOutput: a valid pixel got no number; nothing is left under `out`.
        DiskFull: no room for the output; nothing is left under `out`.
    """
    header, count, started = source.header, _Count(), time.monotonic()
    if (grid.height, grid.width) != (header.height, header.width):
        raise UsageError(
            _("Tiles for {grid} px do not fit a raster of {raster} px.").format(
                grid=f"{grid.height}×{grid.width}", raster=f"{header.height}×{header.width}"
            ),
            _("Make the grid from the raster's header."),
        )
    tell = events or (lambda event: None)
    layout = output.layout(header.height, header.width)
    with CogWriter(out, layout, georeference, codec=codec, threads=threads) as writer:
        regions = score_windows(
            source,
            forward,
            grid,
            output.channels,
            batch=batch,
            threads=threads,
            overlap=overlap,
            average_d4=average_d4,
            scratch=out.parent,
        )
        with closing(regions), disk_errors(out, 0):
            for region in regions:
                writer.write(region.window, _values(region, output, count, tell))
                # Or these scores would still be held while the next batch is made.
                del region
                tell(TileDone(count.tiles, len(grid)))
        _check(count, grid, source)
        writer.finish()
    return PredictionSummary(
        path=out,
        tiles=len(grid),
        tiles_without_data=count.empty,
        total_px=count.finished_px,
        valid_px=count.valid_px,
        predicted_px=count.predicted_px,
        lost_px=count.lost_px,
        failed=tuple(count.failed),
        seconds=time.monotonic() - started,
    )


def _values(
    region: Region, output: Output, count: _Count, tell: Callable[[Event], None]
) -> npt.NDArray[np.generic]:
    """The values to write for a region; enters it in the books."""
    window = region.window
    count.tiles += 1
    count.finished_px += window.area_px
    if region.scores_CHW is None:
        if region.failure:
            count.failed.append(FailedTile(window, region.failure))
            tell(Warned(region.failure))
        else:
            count.empty += 1
        return output.empty(window.height, window.width)
    kept = window.area_px if region.valid_HW is None else int(np.count_nonzero(region.valid_HW))
    count.valid_px += kept + region.lost_px
    count.lost_px += region.lost_px
    values = output.encode(region.scores_CHW, region.valid_HW)
    count.predicted_px += output.predicted_px(values)
    return values


def _check(count: _Count, grid: TileGrid, source: Source) -> None:
    """Every pixel finished, every valid one predicted; or an error.

    Raises:
        UnreadableFile: no tile could be read.
        IncompleteOutput: pixels are missing.
    """
    if len(count.failed) == len(grid):
        raise UnreadableFile(
            _("No tile of {path} could be read: {why}").format(
                path=source.header.path, why=count.failed[0].reason
            ),
            _("Nothing was written. Copy the file anew, or check it with gdalinfo."),
            path=str(source.header.path),
        )
    expected_px = count.valid_px - count.lost_px
    if count.finished_px != grid.height * grid.width or count.predicted_px != expected_px:
        raise IncompleteOutput(
            _(
                "{predicted} of {expected} valid pixels were predicted, and {finished} of {total} written."
            ).format(
                predicted=count.predicted_px,
                expected=expected_px,
                finished=count.finished_px,
                total=grid.height * grid.width,
            ),
            _("Nothing was kept. This is a fault of Caudal: please report it."),
            path=str(source.header.path),
        )


def working_bytes(
    grid: TileGrid,
    bands: int,
    itemsize: int,
    channels: int,
    batch: int,
    *,
    out_bytes: int = 1,
    average_d4: bool = False,
    threads: int = MOST_THREADS,
    overlap: bool = True,
    block_px: int = 256,
) -> int:
    """The most bytes that `predict_raster` holds, beside what the model and the source's `read` do.

    `bands` of `itemsize` bytes come in, `channels` of float32 come from the model, and a pixel of the output
    has `out_bytes` (all bands). `threads` and `overlap` are as there; `block_px` is the height of the file's
    blocks.
    """
    height, width = grid.largest
    tile_px, pixel_bytes = height * width, bands * itemsize + 1
    batch = min(batch, len(grid))
    # Chunks: those of the tile at hand, and those decoded ahead.
    chunks = min(len(grid), chunks_ahead(batch, threads, overlap) + (2 if grid.mode == "blend" else 3))
    pieces = bands_for(grid, block_px, pixel_bytes)
    chunk_bytes = pieces.passing_px * min(grid.core, grid.width) * pixel_bytes
    carried_bytes = pieces.carried_px * grid.width * pixel_bytes
    input_bytes, score_bytes = tile_px * pixel_bytes, tile_px * channels * 4
    # Beside the scores: the batch that they came from, later the next one and the tile that is encoded.
    beside_bytes = batch * input_bytes + tile_px * (2 + out_bytes)
    if average_d4:
        beside_bytes += batch * (score_bytes + input_bytes)
    across_bytes = strip_dtype(grid, channels).itemsize * grid.width if grid.rows > 1 else 0
    strips_bytes = channels * grid.overlap * (4 * height + across_bytes)
    stream_bytes = chunks * chunk_bytes + carried_bytes + batch * score_bytes + beside_bytes + strips_bytes
    slack_bytes = _allocator_slack([chunk_bytes], [input_bytes, score_bytes], batch, grid.mode == "blend")
    return stream_bytes + slack_bytes + writer_bytes(out_bytes, threads)


def _allocator_slack(singles: list[int], in_batches: list[int], batch: int, partial: bool) -> int:
    """What glibc's `malloc` keeps of what was given back; measured, about half the largest piece.

    It keeps none of pieces above 32 MiB. A batch is one piece; in "blend" the last tile of a row has a shape
    of its own, so batches of any size come.
    """
    counts = range(1, batch + 1) if partial else [batch]
    pieces = singles + [count * one for count in counts for one in in_batches]
    return max((piece for piece in pieces if piece <= 32 * MIB), default=0) // 2

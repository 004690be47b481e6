"""Reads and scores a little of the real data as a run does, and says what that takes.

What decoding holds depends on the file: its codec, blocks, bands, and on what the allocator keeps. No
formula was within 50 % of it for every file; a few real reads are.
"""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from caudal.core.geometry import Window
from caudal.core.units import Bytes
from caudal.data.chunk_reader import OpenFiles
from caudal.data.locations import relocated
from caudal.data.readers import READERS, reader_for
from caudal.data.readers.base import Pixels
from caudal.data.url import Location
from caudal.inference.scores import score_windows
from caudal.inference.symmetry import Forward
from caudal.memory.meters import PeakMeter, charged_bytes
from caudal.runs.pieces import Pieces
from caudal.runs.tiling import Tiling

_READS = 2  # for each thread: the second finds what the first left in the allocator
_MOST_TILES = 24


def load_what_scenes_load() -> None:
    """Import what a run over scenes imports: readers of all formats, and what scores in between."""
    from caudal.runs import loading, scoring  # noqa: F401 - a run has them loaded

    for name in READERS.names():
        READERS.get(name)


def decoding_bytes(pieces: Pieces, dtype: str, threads: int, meter: PeakMeter) -> Bytes:
    """The peak of `threads` threads that decode the chunk at the same time, above what is held now."""
    window = Window(*pieces.chunk)
    files = OpenFiles()

    def read(_number: int) -> None:
        x = files.read(relocated(pieces.image), window)
        x_HWC = _filled(x, dtype)
        if pieces.mask is not None:
            _classes(files, relocated(pieces.mask), window)
        del x_HWC

    meter.reset()
    before = charged_bytes()
    with ThreadPoolExecutor(threads) as pool, closing(files):
        list(pool.map(read, range(_READS * threads)))
        return Bytes(max(0, meter.peak() - before))


def scoring_bytes(pieces: Pieces, forward: Forward, tiling: Tiling, channels: int, meter: PeakMeter) -> Bytes:
    """The peak of scoring the first tiles of an image, model's work included, above what is held now."""
    path = relocated(pieces.scored)
    files = OpenFiles()
    with ExitStack() as stack:
        stack.enter_context(closing(files))
        source = stack.enter_context(reader_for(path).open(path))
        scratch = stack.enter_context(tempfile.TemporaryDirectory())
        grid = tiling.grid(source.header)
        # A row of tiles and some of the next: by then every buffer has been asked for.
        count = min(len(grid), grid.cols + 3, _MOST_TILES)
        meter.reset()
        before = charged_bytes()
        windows = score_windows(source, forward, grid, channels, overlap=False, scratch=Path(scratch))
        stack.enter_context(closing(windows))
        for region in islice(windows, count):
            if region.scores_CHW is not None:
                region.scores_CHW.argmax(0).astype(np.uint8)
            if pieces.scored_mask is not None:
                _classes(files, relocated(pieces.scored_mask), region.window)
        return Bytes(max(0, meter.peak() - before))


def _filled(pixels: Pixels, dtype: str) -> npt.NDArray[Any]:
    x_HWC = pixels.x_HWC.astype(dtype, copy=False)
    if pixels.valid_HW is None:
        return x_HWC
    return np.where(~pixels.valid_HW[:, :, None], x_HWC.dtype.type(0), x_HWC)


def _classes(files: OpenFiles, mask: Location, window: Window) -> None:
    mask_HW = files.read(mask, window).x_HWC[:, :, 0]
    np.zeros(mask_HW.shape, np.uint8)[mask_HW > 0] = 1

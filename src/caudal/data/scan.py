"""One pass over the pixels before training: statistics, classes, and data that cannot be learned from.

Small sets are read whole; of large ones, one chunk of each image, and no more images than `MOST_CHUNKS`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from caudal.core.errors import BadValues
from caudal.core.geometry import Window
from caudal.core.messages import _
from caudal.core.seeds import generator
from caudal.data.chunk_reader import OpenFiles
from caudal.data.chunks import Cutter
from caudal.data.classes import count_values
from caudal.data.index import Index
from caudal.data.normalize import Normalization, Statistics
from caudal.data.split import Split

MOST_CHUNKS = 1024
PIXELS_A_CHUNK = 2048


@dataclass(frozen=True)
class Scan:
    """What was seen: normalization of the training part, pixels of each mask value on each side."""

    normalization: Normalization
    train_values: Counter[int]
    held_out_values: Counter[int]
    images: int
    pixels: int


@dataclass(frozen=True)
class _Piece:
    image: int
    x_NC: npt.NDArray[np.float32]
    values: Counter[int]
    pixels: int


def scan(
    index: Index,
    split: Split,
    patch_px: int,
    seed: int,
    threads: int,
    tick: Callable[[int, int], None] = lambda _done, _total: None,
) -> Scan:
    """Read the training and the held-out images once.

    Raises:
        BadValues: an image without one valid pixel, or a mask that is none.
        UnreadableFile: a file is broken.
    """
    statistics = Statistics(len(index.layouts), index.bands)
    train, held_out = Counter[int](), Counter[int]()
    in_training, pixels = set(split.train), 0
    jobs = _choose(index, sorted(split.train + split.held_out), patch_px, seed)
    files = OpenFiles()
    with ThreadPoolExecutor(threads) as pool:
        pieces = pool.map(lambda job: _look(index, files, seed, *job), jobs)
        for done, piece in enumerate(pieces):
            if piece.image in in_training:
                statistics.add(int(index.layout[piece.image]), piece.x_NC)
                train.update(piece.values)
            else:
                held_out.update(piece.values)
            pixels += piece.pixels
            tick(done + 1, len(jobs))
    files.close()
    return Scan(_normalization(index, statistics), train, held_out, len({i for i, _w in jobs}), pixels)


def _choose(index: Index, members: list[int], patch_px: int, seed: int) -> list[tuple[int, Window]]:
    """(image, window) of what is looked at: everything, or one chunk of each image."""
    draw = generator(seed, "scan")
    cutter = Cutter(index, tuple(members), patch_px, seed)
    jobs: list[tuple[int, Window]] = []
    for i in members:
        height, width = int(index.height[i]), int(index.width[i])
        chunk_h, chunk_w = cutter.chunk_shape(i)
        tops = range(0, height, chunk_h)
        lefts = range(0, width, chunk_w)
        windows = [Window(t, left, chunk_h, chunk_w).clip(height, width) for t in tops for left in lefts]
        jobs += [(i, windows[k]) for k in draw.permutation(len(windows))]
    if len(jobs) <= MOST_CHUNKS:
        return jobs
    # The first chunk of each image comes first; then as many as there is room for.
    first = list({job[0]: job for job in reversed(jobs)}.values())
    if len(first) > MOST_CHUNKS:
        first = [first[k] for k in sorted(draw.permutation(len(first))[:MOST_CHUNKS])]
    return first


def _look(index: Index, files: OpenFiles, seed: int, i: int, window: Window) -> _Piece:
    layout = index.layouts[int(index.layout[i])]
    pixels = files.read(index.image(i), window)
    x_NC = pixels.x_HWC.reshape(-1, pixels.x_HWC.shape[2])
    valid = None if pixels.valid_HW is None else pixels.valid_HW.ravel()
    if valid is not None:
        x_NC = x_NC[valid]
        if not len(x_NC) and window.area_px == index.height[i] * index.width[i]:
            raise BadValues(
                _("{path} has no valid pixel.").format(path=index.image(i)),
                _("Every pixel is NaN, nodata or transparent; move the file away."),
                path=str(index.image(i)),
            )
    draw = generator(seed, "scan pixels", i, window.row, window.col)
    keep = draw.integers(0, max(1, len(x_NC)), min(PIXELS_A_CHUNK, len(x_NC)))
    x_NC = x_NC[keep][:, list(layout.order)].astype(np.float32)
    values = Counter[int]()
    mask = index.mask(i)
    if mask is not None:
        mask_HW = files.read(mask, window).x_HWC[:, :, 0]
        values = count_values(mask_HW.ravel()[valid] if valid is not None else mask_HW, mask)
    return _Piece(i, x_NC, values, window.area_px)


def _normalization(index: Index, statistics: Statistics) -> Normalization:
    layouts = index.layouts
    seen = [number for number in range(len(layouts)) if statistics.seen(number)]
    if not seen:
        raise BadValues(
            _("No valid pixel was found in the training images."),
            _("Check their nodata values."),
        )
    # A layout that only held-out images have borrows the first one's figures.
    results = [statistics.result(number if number in seen else seen[0]) for number in range(len(layouts))]
    centre, slope, offset, scale = (
        tuple(tuple(map(float, row)) for row in rows) for rows in zip(*results, strict=True)
    )
    return Normalization(
        layouts=tuple(layout.band_names for layout in layouts),
        order=tuple(layout.order for layout in layouts),
        centre=centre,
        slope=slope,
        offset=offset,
        scale=scale,
    )

"""Scores of a model on images with masks, image by image, tile by tile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from caudal.core.geometry import Window
from caudal.core.labels import IGNORE
from caudal.core.seeds import generator
from caudal.data.chunk_reader import ChunkReader
from caudal.data.index import Index
from caudal.data.readers import reader_for
from caudal.data.readers.base import Header, Pixels, Source
from caudal.inference.forward import Forward
from caudal.inference.scores import score_windows
from caudal.memory import allocator
from caudal.runs.plan import LARGEST_VIEW_PX
from caudal.runs.tiling import Tiling
from caudal.tasks.base import Scorer

_LARGE_PX = 2**22

Forwards = Callable[[int], Forward]
"""The model as a function, for a layout number."""


@dataclass
class ArraySource:
    """Pixels in memory as a source, for a window that was read already."""

    header: Header
    pixels: Pixels

    def read(self, window: Window) -> Pixels:
        """The pixels of `window`."""
        valid = self.pixels.valid_HW
        return Pixels(self.pixels.x_HWC[window.slices], None if valid is None else valid[window.slices])

    def scratch_bytes(self, window: Window) -> int:
        """Nothing: it is a view."""
        return 0

    def close(self) -> None:
        """Nothing to give back."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


def score_image(
    source: Source,
    truth: Callable[[Window], npt.NDArray[np.uint8]],
    forward: Forward,
    tiling: Tiling,
    channels: int,
    scorer: Scorer,
    image: int,
    scratch: Path | None = None,
    tick: Callable[[], None] = lambda: None,
) -> None:
    """Score one image against `truth`, which gives the class numbers of a window; `tick` hears each tile."""
    regions = score_windows(
        source, forward, tiling.grid(source.header), channels, overlap=False, scratch=scratch
    )
    with closing(regions):
        for region in regions:
            if region.scores_CHW is not None:
                predicted_HW = region.scores_CHW.argmax(0).astype(np.uint8)
                if region.valid_HW is not None:
                    predicted_HW[~region.valid_HW] = IGNORE
                scorer.add(image, predicted_HW, truth(region.window))
            tick()


def score_images(
    index: Index,
    members: Sequence[int],
    reader: ChunkReader,
    forwards: Forwards,
    tiling: Tiling,
    channels: int,
    scorer: Scorer,
    scratch: Path | None = None,
    tick: Callable[[int, int], None] = lambda _done, _total: None,
) -> None:
    """Score whole images, each in flat memory; `tick` hears of tiles, those done and all."""
    total = sum(tiling.tiles(int(index.height[i]), int(index.width[i])) for i in members)
    done = 0

    def one_more() -> None:
        nonlocal done
        done += 1
        tick(done, total)

    for i in members:

        def truth(window: Window, i: int = i) -> npt.NDArray[np.uint8]:
            return reader.classes_in(i, window)

        with reader_for(index.image(i)).open(index.image(i)) as source:
            forward = forwards(int(index.layout[i]))
            score_image(source, truth, forward, tiling, channels, scorer, i, scratch, one_more)
        if index.height[i] * index.width[i] >= _LARGE_PX:
            allocator.trim()  # measured: without it the next image adds a fifth to the peak


@dataclass(frozen=True)
class View:
    """A window of a held-out image that is scored while training goes on."""

    image: int
    window: Window


def choose_views(index: Index, members: Sequence[int], most_px: int, seed: int) -> list[View]:
    """One window of each image, the same at every score, together about `most_px` pixels at the most.

    Whole images while they fit; else windows in a random place, and of very many images a random part.
    """
    draw = generator(seed, "views")
    least = 128 * 128
    chosen = list(members)
    if len(chosen) * least > most_px:
        keep = max(1, most_px // least)
        chosen = sorted(chosen[k] for k in draw.permutation(len(chosen))[:keep])
    side = min(LARGEST_VIEW_PX, int(max(least, most_px / len(chosen)) ** 0.5))
    views = []
    for i in chosen:
        height, width = int(index.height[i]), int(index.width[i])
        if height * width <= max(side * side, most_px // len(chosen)) and max(height, width) <= 4 * side:
            views.append(View(i, Window(0, 0, height, width)))
            continue
        high, wide = min(side, height), min(side, width)
        row, col = int(draw.integers(0, height - high + 1)), int(draw.integers(0, width - wide + 1))
        views.append(View(i, Window(row, col, high, wide)))
    return views


def score_views(
    index: Index,
    views: Sequence[View],
    reader: ChunkReader,
    forwards: Forwards,
    tiling: Tiling,
    channels: int,
    scorer: Scorer,
) -> None:
    """Score windows of images."""
    for view in views:
        path = index.image(view.image)
        header = reader_for(path).header(path)
        pixels = reader.files.read(path, view.window)
        source = ArraySource(_cropped(header, view.window), pixels)

        def truth(window: Window, view: View = view) -> npt.NDArray[np.uint8]:
            row, col = view.window.row + window.row, view.window.col + window.col
            return reader.classes_in(view.image, Window(row, col, window.height, window.width))

        forward = forwards(int(index.layout[view.image]))
        score_image(source, truth, forward, tiling, channels, scorer, view.image)


def _cropped(header: Header, window: Window) -> Header:
    fields: dict[str, Any] = {name: getattr(header, name) for name in Header.__slots__}
    size = {"height": window.height, "width": window.width, "block": (window.height, window.width)}
    return Header(**(fields | size))

"""One chunk of an image and its mask, as the stream needs it: bands in order, holes filled."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from caudal.core.geometry import Window
from caudal.core.labels import IGNORE
from caudal.data.classes import Classes
from caudal.data.index import Index
from caudal.data.readers import reader_for
from caudal.data.readers.base import Pixels, Source
from caudal.data.url import Location

OPEN_FILES = 64


@dataclass
class _Open:
    """`users` are reading it now; it is closed when there is none."""

    source: Source
    users: int = 0


class OpenFiles:
    """Open sources, the least recently used closed first. Safe to use from several threads."""

    def __init__(self, most: int = OPEN_FILES) -> None:
        self._most = most
        self._open: OrderedDict[Location, _Open] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, path: Location, window: Window) -> Pixels:
        """The pixels of a window of `path`."""
        one = self._take(path)
        try:
            return one.source.read(window)
        finally:
            self._give(one)

    def _take(self, path: Location) -> _Open:
        with self._lock:
            known = self._open.get(path)
            if known is not None:
                known.users += 1
                self._open.move_to_end(path)
                return known
        opened = _Open(reader_for(path).open(path))
        with self._lock:
            known = self._open.setdefault(path, opened)  # another thread may have been faster
            known.users += 1
        if known is not opened:
            opened.source.close()
        return known

    def _give(self, one: _Open) -> None:
        with self._lock:
            one.users -= 1
            if len(self._open) <= self._most:
                return
            idle = [path for path, opened in self._open.items() if not opened.users]
            old = [self._open.pop(path) for path in idle[: len(self._open) - self._most]]
        for each in old:
            each.source.close()

    def close(self) -> None:
        """Close every file. Nobody may read any more."""
        with self._lock:
            opened, self._open = list(self._open.values()), OrderedDict()
        for one in opened:
            one.source.close()


@dataclass(frozen=True)
class Chunk:
    """Decoded pixels of a chunk: `x_HWC` in the stream's dtype, `y_HW` class numbers (uint8)."""

    x_HWC: npt.NDArray[Any]
    y_HW: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class ChunkReader:
    """Reads chunks of an index. `fill_LC` is what stands in the place of pixels that are not valid.

    Without `classes` masks are not read: every valid pixel has class number 0.
    """

    index: Index
    classes: Classes | None
    fill_LC: npt.NDArray[np.float32]
    files: OpenFiles

    def read(self, i: int, window: Window) -> Chunk:
        """The chunk `window` of image i; each block of it is decoded once.

        Raises:
            UnreadableFile: the image or the mask is broken.
            BadValues: the mask holds a value that is no class.
        """
        number = int(self.index.layout[i])
        layout = self.index.layouts[number]
        pixels = self.files.read(self.index.image(i), window)
        x_HWC = pixels.x_HWC if layout.is_plain else pixels.x_HWC[:, :, list(layout.order)]
        x_HWC = x_HWC.astype(self.index.dtype, copy=False)
        y_HW = self.classes_in(i, window)
        if pixels.valid_HW is not None:
            hole = ~pixels.valid_HW
            x_HWC = np.where(hole[:, :, None], self.fill_LC[number].astype(x_HWC.dtype), x_HWC)
            y_HW[hole] = IGNORE
        return Chunk(x_HWC, y_HW)

    def classes_in(self, i: int, window: Window) -> npt.NDArray[np.uint8]:
        """Class numbers of a window of the mask of image i; all `IGNORE` where there is no mask."""
        if self.classes is None:
            return np.zeros((window.height, window.width), np.uint8)
        path = self.index.mask(i)
        if path is None:
            return np.full((window.height, window.width), IGNORE, np.uint8)
        pixels = self.files.read(path, window)
        mask_HW = pixels.x_HWC[:, :, 0]
        if mask_HW.dtype.kind == "f":
            # A hole in a floating-point mask is left out, whatever value marks it.
            holes = np.isnan(mask_HW)
            mask_HW = np.where(holes, self.classes.values[0], mask_HW)
            numbers = self.classes.numbers(mask_HW, path)
            numbers[holes] = IGNORE
            return numbers
        return self.classes.numbers(mask_HW, path)


def cut_patch(
    chunk: Chunk, row: int, col: int, x_out: npt.NDArray[Any], y_out: npt.NDArray[np.uint8]
) -> None:
    """Copy the square patch at (row, col) of a chunk into `x_out` (P, P, C) and `y_out` (P, P).

    A chunk smaller than the patch is mirrored out to it, and what is mirrored is not learned from.
    """
    side = len(y_out)
    x, y = chunk.x_HWC[row : row + side, col : col + side], chunk.y_HW[row : row + side, col : col + side]
    high, wide = y.shape
    if (high, wide) != (side, side):
        pads = ((0, side - high), (0, side - wide))
        x = np.pad(x, (*pads, (0, 0)), mode="symmetric")
        y = np.pad(y, pads, constant_values=IGNORE)
    x_out[:] = x
    y_out[:] = y

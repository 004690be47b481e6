"""One chunk of an image and its mask, as the stream needs it: bands in order, holes filled."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from caudal.core.geometry import Window
from caudal.core.labels import IGNORE
from caudal.data.classes import Classes
from caudal.data.index import Index
from caudal.data.readers import reader_for
from caudal.data.readers.base import Pixels, Source

OPEN_FILES = 64


class OpenFiles:
    """Open sources, the least recently used closed first. Safe to use from several threads."""

    def __init__(self, most: int = OPEN_FILES) -> None:
        self._most = most
        self._open: OrderedDict[Path, Source] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, path: Path, window: Window) -> Pixels:
        """The pixels of a window of `path`."""
        with self._lock:
            source = self._open.pop(path, None)
        # Taken out while it is read: it cannot be closed under the reader's hands.
        if source is None:
            source = reader_for(path).open(path)
        try:
            return source.read(window)
        finally:
            self._put_back(path, source)

    def _put_back(self, path: Path, source: Source) -> None:
        with self._lock:
            spare = self._open.pop(path, None)
            self._open[path] = source
            old = [spare] if spare is not None else []
            while len(self._open) > self._most:
                old.append(self._open.popitem(last=False)[1])
        for one in old:
            one.close()

    def close(self) -> None:
        """Close every file."""
        with self._lock:
            sources, self._open = list(self._open.values()), OrderedDict()
        for source in sources:
            source.close()


@dataclass(frozen=True)
class Chunk:
    """Decoded pixels of a chunk: `x_HWC` in the stream's dtype, `y_HW` class numbers (uint8)."""

    x_HWC: npt.NDArray[Any]
    y_HW: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class ChunkReader:
    """Reads chunks of an index. `fill_LC` is what stands in the place of pixels that are not valid."""

    index: Index
    classes: Classes
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

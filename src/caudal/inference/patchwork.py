"""Cuts finished windows into the blocks of an image; blocks that several windows fill wait in a file.

Where windows start and end with blocks nothing waits and nothing is copied. Packs nothing and knows no file
format.

Shapes: H rows, W columns, B bands.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from caudal.core.geometry import Window, blocks_touched
from caudal.inference.spill import Spill

Array = npt.NDArray[Any]


class Patchwork:
    """Blocks of `block_px`² of an image of `height` × `width` px, each given out once it is whole.

    `add` may be called from several threads at once.

    Raises:
        OSError: from `add`; `ENOSPC` without room in `folder`.
    """

    def __init__(
        self, folder: Path, height: int, width: int, block_px: int, bands: int, dtype: np.dtype[Any]
    ) -> None:
        self._folder, self._size, self._block_px = folder, (height, width), block_px
        self._bands, self._dtype = bands, dtype
        self._row_bytes = block_px * bands * dtype.itemsize
        self._lock = threading.Lock()
        self._spill: Spill | None = None
        self._waiting: dict[tuple[int, int], tuple[int, int]] = {}  # block → its slot, px still missing
        self._free: list[int] = []
        self._slots = 0

    def add(self, window: Window, x_HWB: Array) -> Iterator[tuple[int, int, Array]]:
        """Take the pixels of `window`; row, column and pixels of the blocks that are whole now.

        They may be views of `x_HWB`.
        """
        block = self._block_px
        for row, col in blocks_touched(window, (block, block)):
            area = Window(row * block, col * block, block, block).clip(*self._size)
            part = window.intersect(area)
            piece_HWB = x_HWB[part.within(window)]
            if part == area:
                yield row, col, piece_HWB
                continue
            with self._lock:
                whole_HWB = self._join((row, col), area, part, piece_HWB)
            if whole_HWB is not None:
                yield row, col, whole_HWB

    def _join(self, key: tuple[int, int], area: Window, part: Window, piece_HWB: Array) -> Array | None:
        """Put a piece beside those of the same block; the block, if that was the last."""
        if self._spill is None:
            self._spill = Spill(self._folder)
        slot, missing_px = self._waiting.pop(key) if key in self._waiting else (self._take(), area.area_px)
        rows, cols = part.within(area)
        place = slot * self._row_bytes * self._block_px
        across_HWB = self._rows(self._spill, place, rows)
        across_HWB[:, cols] = piece_HWB
        self._spill.write(place + rows.start * self._row_bytes, across_HWB.reshape(-1).view(np.uint8).data)
        if missing_px > part.area_px:
            self._waiting[key] = slot, missing_px - part.area_px
            return None
        self._free.append(slot)
        return self._rows(self._spill, place, slice(0, area.height))[:, : area.width]

    def _take(self) -> int:
        if self._free:
            return self._free.pop()
        self._slots += 1
        return self._slots - 1

    def _rows(self, spill: Spill, place: int, rows: slice) -> Array:
        count = rows.stop - rows.start
        raw = spill.read(place + rows.start * self._row_bytes, count * self._row_bytes)
        return np.frombuffer(raw, self._dtype).reshape(count, self._block_px, self._bands)

    def close(self) -> None:
        """Give the disk space back."""
        if self._spill is not None:
            self._spill.close()

"""Keeps decoded blocks on disk, for files whose blocks are larger than a tile.

A file in strips has blocks as wide as the raster; a PNG is one block. Cutting tiles out of those would decode
each block once per tile. Here each is decoded once and laid into an unnamed file beside the output, from
which tiles are cut. The pages of that file belong to the page cache: the system takes them back when memory
is short. Files in small blocks never come here.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from caudal.core.errors import UnreadableFile
from caudal.core.geometry import Window, blocks_touched, round_up
from caudal.data.readers.base import Header, Pixels, Source

CELL_BYTES = 4 * 2**20  # blocks smaller than this are decoded several at a time


def pays(header: Header, window_px: int) -> bool:
    """Whether blocks reach so far beyond windows of `window_px`² that most decoding would be repeated."""
    height, width = min(header.block[0], header.height), min(header.block[1], header.width)
    return max(1.0, height / window_px) * max(1.0, width / window_px) > 2


class Spool:
    """Reads windows of `source`, decoding each of its blocks once as long as windows come from top to bottom.

    Holds two rows of windows of at most `window_height` px on disk, in `folder`. `read` may be called from
    several threads; one decodes at a time.

    Raises:
        OSError: `folder` has no room (`ENOSPC`), or cannot be written.
    """

    def __init__(self, source: Source, window_height: int, folder: Path) -> None:
        header = source.header
        block_height, block_width = (
            min(side, whole) for side, whole in zip(header.block, (header.height, header.width), strict=True)
        )
        row_bytes = block_width * header.pixel_bytes
        together = max(1, CELL_BYTES // (row_bytes * block_height))
        self.header = header
        self._source = source
        self._cell = (min(block_height * together, round_up(window_height, block_height)), block_width)
        self._across = -(-header.width // block_width)
        self._ring = 2 * (window_height // self._cell[0] + 2)
        self._ring = min(self._ring, -(-header.height // self._cell[0]))
        self._lock = threading.Lock()
        self._held: dict[int, tuple[int, int]] = {}
        self._file, self._map = self._allocate(folder)
        self._x, self._valid = self._arrays()

    def _allocate(self, folder: Path) -> tuple[Any, mmap.mmap]:
        pixel_bytes = self.header.pixel_bytes + 1
        size = self._ring * self._across * self._cell[0] * self._cell[1] * pixel_bytes
        file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by close()
        try:
            # A page that finds no room on disk kills the process; so the room is taken now.
            os.posix_fallocate(file.fileno(), 0, size)
            return file, mmap.mmap(file.fileno(), size)
        except OSError:
            file.close()
            raise

    def _arrays(self) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        shape = (self._ring * self._across, *self._cell)
        count = shape[0] * shape[1] * shape[2]
        bands, dtype = self.header.bands, self.header.dtype
        x = np.frombuffer(self._map, dtype, count * bands).reshape(*shape, bands)
        valid = np.frombuffer(self._map, np.bool_, count, offset=x.nbytes).reshape(shape)
        return x, valid

    def read(self, window: Window) -> Pixels:
        """As `Source.read`.

        Raises:
            UnreadableFile: a block is missing, truncated or broken.
        """
        try:
            return self._cut(window)
        except UnreadableFile:
            # The broken block may lie in a part of the cell that this window does not touch.
            return self._source.read(window)

    def _cut(self, window: Window) -> Pixels:
        header = self.header
        x_HWC = np.empty((window.height, window.width, header.bands), header.dtype)
        valid_HW = np.empty((window.height, window.width), np.bool_)
        with self._lock:
            for cell in blocks_touched(window, self._cell):
                slot, area = self._fill(*cell)
                part = window.intersect(area)
                there, here = part.within(area), part.within(window)
                x_HWC[here] = self._x[slot][there]
                valid_HW[here] = self._valid[slot][there]
        return Pixels(x_HWC, None if valid_HW.all() else valid_HW)

    def _fill(self, row: int, col: int) -> tuple[int, Window]:
        """The slot that holds that cell, decoded now unless it is there, and the cell's window."""
        height, width = self._cell
        area = Window(row * height, col * width, height, width).clip(self.header.height, self.header.width)
        slot = row % self._ring * self._across + col
        if self._held.get(slot) != (row, col):
            self._held.pop(slot, None)
            pixels = self._source.read(area)
            self._x[slot, : area.height, : area.width] = pixels.x_HWC
            self._valid[slot, : area.height, : area.width] = (
                True if pixels.valid_HW is None else pixels.valid_HW
            )
            self._held[slot] = (row, col)
        return slot, area

    def close(self) -> None:
        """Give the disk space back; not the source, which was only lent."""
        del self._x, self._valid
        self._map.close()
        self._file.close()

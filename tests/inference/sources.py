"""Rasters in memory, or made up as they are read: what `Source` asks for and no more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from caudal.core.errors import UnreadableFile
from caudal.core.geometry import Window
from caudal.data.readers.base import Header, Pixels

Array = npt.NDArray[Any]


class MadeUp:
    """A raster whose pixels `make(window)` invents; refuses windows outside it, counts reads."""

    def __init__(
        self,
        shape: tuple[int, int, int],
        dtype: Any,
        make: Callable[[Window], Pixels],
        block: tuple[int, int] = (512, 512),
    ) -> None:
        height, width, bands = shape
        names = tuple(f"band {number}" for number in range(bands))
        self.header = Header(
            Path("made-up"), height, width, bands, np.dtype(dtype), block, "none", names, None, False
        )
        self.make = make
        self.reads: list[Window] = []

    def read(self, window: Window) -> Pixels:
        assert window.area_px > 0
        assert window.clip(self.header.height, self.header.width) == window
        self.reads.append(window)
        return self.make(window)

    def scratch_bytes(self, window: Window) -> int:
        return 0

    def close(self) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def held(x_HWC: Array, valid_HW: Array | None = None, block: tuple[int, int] = (512, 512)) -> MadeUp:
    """A raster that is in memory."""

    def make(window: Window) -> Pixels:
        valid = None if valid_HW is None else valid_HW[window.slices]
        return Pixels(x_HWC[window.slices], None if valid is None or valid.all() else valid)

    return MadeUp(x_HWC.shape, x_HWC.dtype, make, block)


def broken_at(source: MadeUp, *bad: Window) -> MadeUp:
    """The same raster, where a read that touches one of `bad` fails."""

    def make(window: Window) -> Pixels:
        if any(window.intersect(area).area_px for area in bad):
            raise UnreadableFile("A block is broken.", "Copy the file anew.", path=source.header.path)
        return source.read(window)

    header = source.header
    return MadeUp((header.height, header.width, header.bands), header.dtype, make, header.block)


def noise(height: int, width: int, bands: int = 1, dtype: Any = np.uint8, seed: int = 0) -> Array:
    """Random pixels."""
    x = np.random.default_rng(seed).integers(0, 200, (height, width, bands))
    return x.astype(dtype)


def as_scores(x_NHWC: Array, valid_NHW: Array | None) -> npt.NDArray[np.float32]:
    """The model that gives back its input."""
    return np.ascontiguousarray(x_NHWC.transpose(0, 3, 1, 2)).astype(np.float32)

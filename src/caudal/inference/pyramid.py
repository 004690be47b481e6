"""Overviews of a raster: each level half the size of the one before, in memory that stays flat.

GDAL makes overviews too, but its mode looks at the whole raster again for every level and took about 10 ms
per megapixel; this one, level from level, takes 2. Levels lie beside the raster as `NAME.ovr`,
`NAME.ovr.ovr`, …, where GDAL looks for them. For maps of classes a coarse level is the mode of modes: right
for looking, not for counting.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.windows

from caudal.core.geometry import Window

How = Literal["mode", "average"]
Array = npt.NDArray[Any]

SMALLEST_PX = 512  # levels end when one is no larger than this: a block
WINDOW_PX = 1024  # read at once


def to_gdal(window: Window) -> Any:
    """The same rectangle as rasterio writes it."""
    return rasterio.windows.Window(window.col, window.row, window.width, window.height)


def build_overviews(path: Path, how: How, profile: dict[str, Any]) -> list[Path]:
    """Write every level of the raster at `path` beside it; the files written, finest first.

    `profile` is what `rasterio.open` takes to write a level, without its size. Holds two windows of
    `WINDOW_PX`².
    """
    levels = [path]
    while True:
        with rasterio.open(levels[-1]) as fine:
            if max(fine.height, fine.width) <= SMALLEST_PX:
                return levels[1:]
            levels.append(levels[-1].with_name(levels[-1].name + ".ovr"))
            size = {"height": -(-fine.height // 2), "width": -(-fine.width // 2)}
            with rasterio.open(levels[-1], "w", **{**profile, **size}) as coarse:
                _halve_raster(fine, coarse, how)


def _halve_raster(fine: Any, coarse: Any, how: How) -> None:
    step = WINDOW_PX
    for row, col in itertools.product(range(0, fine.height, step), range(0, fine.width, step)):
        window = Window(row, col, step, step).clip(fine.height, fine.width)
        half_CHW = halve(fine.read(window=to_gdal(window)), how, fine.nodata)
        _, height, width = half_CHW.shape
        coarse.write(half_CHW, window=to_gdal(Window(row // 2, col // 2, height, width)))


def halve(x_CHW: Array, how: How, nodata: float | None) -> Array:
    """One pixel for each 2×2 pixels of `x_CHW`, in its dtype; an odd last row or column counts twice.

    Pixels that equal `nodata` have no say unless all four do. "mode" takes the most frequent value (of
    classes, whose nodata is the highest value of the dtype); "average" the mean, rounded for integers.
    """
    quarters = _quarters(x_CHW)
    return _mode(quarters, nodata) if how == "mode" else _mean(quarters, nodata)


def _quarters(x_CHW: Array) -> list[Array]:
    _, height, width = x_CHW.shape
    if height % 2 or width % 2:
        x_CHW = np.pad(x_CHW, ((0, 0), (0, height % 2), (0, width % 2)), mode="edge")
    return [np.ascontiguousarray(x_CHW[:, i::2, j::2]) for i in (0, 1) for j in (0, 1)]


def _mode(quarters: list[Array], nodata: float | None) -> Array:
    a, b, c, d = quarters
    # The value that two of them share; with four different ones, the first.
    pair = (a != b) & (a != c) & (a != d)
    most: Array = np.where(pair & ((b == c) | (b == d)), b, a)
    np.copyto(most, c, where=pair & (c == d) & (b != c))
    if nodata is not None:
        # Nodata is the highest value, so the lowest of four is a class if there is one.
        empty = most == nodata
        if empty.any():
            lowest = np.minimum(np.minimum(a, b), np.minimum(c, d))
            np.copyto(most, lowest, where=empty)
    return most


def _mean(quarters: list[Array], nodata: float | None) -> Array:
    dtype = quarters[0].dtype
    total = np.zeros(quarters[0].shape, dtype=np.float32)
    count = np.zeros(quarters[0].shape, dtype=np.uint8)
    for quarter in quarters:
        good = _not_nodata(quarter, nodata)
        np.add(total, quarter, out=total, where=good)
        count += good
    none = count == 0
    total /= np.maximum(count, 1)
    if dtype.kind != "f":
        np.rint(total, out=total)
    mean: Array = total.astype(dtype)
    if nodata is not None:
        mean[none] = nodata
    return mean


def _not_nodata(x: Array, nodata: float | None) -> npt.NDArray[np.bool_]:
    if nodata is None:
        return np.ones(x.shape, dtype=np.bool_)
    if np.isnan(nodata):
        good: npt.NDArray[np.bool_] = ~np.isnan(x)
        return good
    return np.asarray(x != nodata, dtype=np.bool_)

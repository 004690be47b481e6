"""Overviews of an output: each level half the size of the one before, made of its blocks as they come.

For maps of classes a coarse level is the mode of modes: right for looking, not for counting. Knows no file.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

How = Literal["mode", "average"]
Array = npt.NDArray[Any]

SMALLEST_PX = 512  # levels end when one is no larger than this: a block


def level_sizes(height: int, width: int) -> list[tuple[int, int]]:
    """Height and width in px of the raster and of each of its overviews, finest first."""
    sizes = [(height, width)]
    while max(sizes[-1]) > SMALLEST_PX:
        sizes.append((-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2)))
    return sizes


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

"""Scenes with many bands in which anomalies of four kinds are planted, with a mask of which is where.

No model and no measurement. Legend: H row, W column, C band, K end member.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio

KINDS = ("spectral", "shape", "small", "large")
"""The values 1 … 4 of a mask: an unusual spectrum, usual ones in an unusual form, dots of two pixels a side,
and wide shifts that keep the texture."""
Array = npt.NDArray[np.float32]
Mask = npt.NDArray[np.uint8]


def plant(x_HWC: Array, valid_HW: npt.NDArray[np.bool_], first_col: int, seed: int) -> tuple[Array, Mask]:
    """A copy with anomalies from column `first_col` on, where all is valid, and their mask."""
    draw = np.random.default_rng(seed)
    x_HWC, mask_HW = x_HWC.copy(), np.zeros(valid_HW.shape, np.uint8)
    high, wide = valid_HW.shape
    area = high * (wide - first_col)
    spread_C = x_HWC[valid_HW].std(0)
    bands = len(spread_C)
    unusual_C = np.where(np.arange(bands) % 2, 1, -1).astype(np.float32)
    rows, cols = np.mgrid[:high, :wide]

    def place(half: int) -> tuple[int, int] | None:
        for _try in range(200):
            row = int(draw.integers(half, high - half))
            col = int(draw.integers(first_col + half, wide - half))
            near = slice(row - half, row + half + 1), slice(col - half, col + half + 1)
            if valid_HW[near].all() and not mask_HW[near].any():
                return row, col
        return None

    def each(kind: int, count: int, half: int, form: Callable[[int, int], npt.NDArray[np.bool_]]) -> None:
        for _number in range(max(1, count)):
            found = place(half)
            if found is None:
                continue
            row, col = found
            near = slice(row - half, row + half + 1), slice(col - half, col + half + 1)
            chosen_HW = form(row, col)[near]
            part = x_HWC[near]
            if kind == 1:  # the spectrum the other way round, as bright as before
                part[chosen_HW] = part[chosen_HW][:, ::-1]
            elif kind == 2:  # a spectrum from elsewhere, with its noise
                usual = x_HWC[valid_HW & (mask_HW == 0)]
                part[chosen_HW] = usual[draw.integers(len(usual))] + draw.normal(
                    0, 0.02 * spread_C, (int(chosen_HW.sum()), bands)
                )
            elif kind == 3:
                part[chosen_HW] += 1.2 * spread_C * unusual_C
            else:
                part[chosen_HW] += 0.4 * spread_C * unusual_C
            mask_HW[near][chosen_HW] = kind

    def disc(radius: float) -> Callable[[int, int], npt.NDArray[np.bool_]]:
        return lambda row, col: (rows - row) ** 2 + (cols - col) ** 2 <= radius**2

    def ring(row: int, col: int) -> npt.NDArray[np.bool_]:
        away = np.maximum(abs(rows - row), abs(cols - col))
        return (away >= 14) & (away <= 16)

    def dot(row: int, col: int) -> npt.NDArray[np.bool_]:
        return (rows >= row) & (rows < row + 2) & (cols >= col) & (cols < col + 2)

    side = 40 if min(high, wide) > 1000 else 24
    each(4, area // 400_000, side, lambda row, col: np.maximum(abs(rows - row), abs(cols - col)) <= side)
    each(1, area // 100_000, 9, disc(8))
    each(2, area // 150_000, 17, ring)
    each(
        3, area // 30_000, 2, lambda r, c: (rows - r >= 0) & (rows - r < 2) & (cols - c >= 0) & (cols - c < 2)
    )
    return x_HWC, mask_HW


def scene(side: int, bands: int, seed: int) -> Array:
    """A made scene: four grounds with smooth borders, light and shade, and noise; about 500 to 4000."""
    from scipy.ndimage import gaussian_filter, zoom

    grounds_KC = np.random.default_rng(7).uniform(600, 3600, (4, bands))  # the same ones in every scene
    draw = np.random.default_rng(seed)
    fields = [gaussian_filter(draw.normal(size=(side // 4, side // 4)), 6) for _ground in grounds_KC]
    weight_KHW = np.exp(90 * np.stack([zoom(field, 4, order=1) for field in fields]))
    weight_KHW /= weight_KHW.sum(0)
    light_HW = 1 + gaussian_filter(draw.normal(size=(side, side)), 3) * 0.8
    x_HWC = np.einsum("khw,kc->hwc", weight_KHW, grounds_KC) * light_HW[..., None]
    return np.asarray(x_HWC + draw.normal(0, 25, x_HWC.shape), np.float32)


def write(path: Path, x_HWC: npt.NDArray[np.generic], nodata: float | None = None) -> Path:
    """A tiled GeoTIFF."""
    from tests.data.sets import write_tiff

    options = {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate"}
    return write_tiff(path, x_HWC, **options, **({} if nodata is None else {"nodata": nodata}))


def sentinel(raster: Path, folder: Path) -> tuple[Path, Path, Mask]:
    """Windows of the raster's left half to learn from; the whole with plants in its right half; their mask.

    What is outside the scene is white in the file, and named as nodata in the copies.
    """
    with rasterio.open(raster) as file:
        x_HWC = np.moveaxis(file.read(), 0, 2)
    valid_HW = (x_HWC != 255).any(2)
    middle = x_HWC.shape[1] // 2
    for row in range(0, x_HWC.shape[0] - 439, 440):
        for col in range(0, middle - 655, 656):
            window = slice(row, row + 440), slice(col, col + 656)
            if valid_HW[window].mean() > 0.3:
                write(folder / "learned" / f"{row} {col}.tif", x_HWC[window], 255)
    planted, mask_HW = plant(x_HWC.astype(np.float32), valid_HW, middle, 1)
    planted = np.where(valid_HW[..., None], planted.round().clip(0, 254), 255).astype(np.uint8)
    whole = write(folder / "whole.tif", planted, 255)
    return folder / "learned", whole, np.where(valid_HW, mask_HW, 255).astype(np.uint8)


def made(folder: Path, learned: int, judged: int, side: int, bands: int = 5) -> tuple[Path, Path, list[Mask]]:
    """Made scenes to learn from, others with plants, and their masks in the order of names."""
    for number in range(learned):
        write(folder / "learned" / f"{number:03d}.tif", scene(side, bands, number).astype(np.uint16))
    masks = []
    for number in range(judged):
        x_HWC = scene(side, bands, 1000 + number)
        planted, mask_HW = plant(x_HWC, np.ones(x_HWC.shape[:2], bool), 0, number)
        write(folder / "judged" / f"{number:03d}.tif", planted.clip(0).astype(np.uint16))
        masks.append(mask_HW)
    return folder / "learned", folder / "judged", masks

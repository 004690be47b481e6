"""Small data sets that tests make: real files, seeded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.transform import from_origin


def write_tiff(path: Path, x_HWC: np.ndarray, names: tuple[str, ...] = (), **options: Any) -> Path:
    """A GeoTIFF with a place on Earth."""
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {
        "driver": "GTiff",
        "height": x_HWC.shape[0],
        "width": x_HWC.shape[1],
        "count": x_HWC.shape[2],
        "dtype": x_HWC.dtype,
        "crs": "EPSG:32630",
        "transform": from_origin(500000, 4000000, 2, 2),
    } | options
    with rasterio.open(path, "w", **profile) as file:
        file.write(np.moveaxis(x_HWC, 2, 0))
        if names:
            file.descriptions = names
    return path


def blob_set(
    folder: Path,
    sizes: list[tuple[int, int]],
    bands: int = 3,
    dtype: str = "uint16",
    seed: int = 0,
    names: tuple[str, ...] = (),
    **options: Any,
) -> Path:
    """`folder/images` and `folder/masks`: bright squares on noise; the mask is 1 on them."""
    draw = np.random.default_rng(seed)
    for number, (height, width) in enumerate(sizes):
        x = draw.integers(200, 400, (height, width, bands))
        y = np.zeros((height, width), np.uint8)
        for _ in range(max(1, height * width // 1500)):
            side = int(draw.integers(6, 16))
            row, col = (
                int(draw.integers(0, max(1, height - side))),
                int(draw.integers(0, max(1, width - side))),
            )
            y[row : row + side, col : col + side] = 1
        x = x + y[:, :, None] * draw.integers(250, 400, bands)
        write_tiff(folder / "images" / f"scene {number:03d} ñ.tif", x.astype(dtype), names, **options)
        write_tiff(folder / "masks" / f"scene {number:03d} ñ.tif", y[:, :, None])
    return folder

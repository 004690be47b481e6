"""TIFFs made for the tests of the readers: written by GDAL or tifffile, then bent where a test needs it."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import tifffile

from caudal.core.geometry import Window
from caudal.data.readers.base import Array


def picture(height: int, width: int, bands: int, dtype: str, seed: int = 0) -> Array:
    """Half smooth, half noise, using the whole range of the type: x_HWC."""
    random = np.random.default_rng(seed)
    kind = np.dtype(dtype)
    y, x, b = np.ogrid[:height, :width, :bands]
    smooth = np.sin(y / 9 + b) + np.cos(x / 7)
    if kind.kind == "f":
        return (smooth * 1000 + random.normal(0, 1, (height, width, bands))).astype(kind)
    info = np.iinfo(kind)
    noise = random.integers(info.min, info.max, (height, width, bands), kind, endpoint=True)
    return np.where((x < width // 2), (smooth * 20 + 50).astype(kind), noise)


def write_gdal(path: Path, x_HWC: Array, **options: Any) -> Path:
    """Write with GDAL; `options` are those of its GTiff driver."""
    height, width, bands = x_HWC.shape
    profile = {"driver": "GTiff", "height": height, "width": width, "count": bands, "dtype": x_HWC.dtype.name}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path, "w", **profile, **options) as dataset:
            dataset.write(np.moveaxis(x_HWC, 2, 0))
    return path


def read_gdal(path: Path, window: Window | None = None) -> Array:
    """All bands of a window, read by GDAL: x_HWC."""
    with rasterio.open(path) as dataset:
        area = None
        if window is not None:
            area = ((window.row, window.row_end), (window.col, window.col_end))
        return np.moveaxis(dataset.read(window=area), 0, 2)


def windows(height: int, width: int, count: int, seed: int) -> list[Window]:
    """The whole image, its last pixel, and `count` random windows."""
    random = np.random.default_rng(seed)
    found = [Window(0, 0, height, width), Window(height - 1, width - 1, 1, 1)]
    for _ in range(count):
        h, w = int(random.integers(1, min(height, 300) + 1)), int(random.integers(1, min(width, 300) + 1))
        found.append(
            Window(int(random.integers(0, height - h + 1)), int(random.integers(0, width - w + 1)), h, w)
        )
    return found


def block_tags(path: Path) -> tuple[int, int]:
    """The codes of a file's offset and byte count tags."""
    with tifffile.TiffFile(path) as file:
        return (324, 325) if file.pages[0].is_tiled else (273, 279)


def tag_values(path: Path, code: int) -> list[int]:
    """The values of a tag of the first page."""
    with tifffile.TiffFile(path) as file:
        value = file.pages[0].tags[code].value
    return list(value) if isinstance(value, tuple) else [int(value)]


def patch_tag(path: Path, code: int, values: list[int]) -> None:
    """Overwrite a tag's values in place; their count stays."""
    with tifffile.TiffFile(path) as file:
        tag, order = file.pages[0].tags[code], file.byteorder
        form = {1: "B", 3: "H", 4: "I", 16: "Q"}[int(tag.dtype)]
        place = tag.valueoffset
    raw = bytearray(path.read_bytes())
    struct.pack_into(f"{order}{len(values)}{form}", raw, place, *values)
    path.write_bytes(raw)

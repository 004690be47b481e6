"""Generated scenes to try the program on, as files: images, masks, and one raster of any size.

What is drawn, and why it is not easy, says `world.py`. Knows no task and no model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from caudal.core.files import write_whole
from caudal.core.geometry import Window
from caudal.data.world import BAND_NAMES, PIXEL_M, World

EPSG = 32630
_WEST_M, _NORTH_M = 440_000.0, 4_480_000.0
_STRIP_PX = 512  # what `make_raster` renders at once
_CACHE_MIB = 16  # GDAL's block cache would else take a share of the machine's memory


def make_scenes(folder: Path, count: int, size_px: tuple[int, int] = (512, 512), seed: int = 0) -> None:
    """Write `folder/images/scene-001.tif` … and `folder/masks/scene-001.tif` …, side by side on the map.

    Images hold five uint16 bands, masks uint8: 1 on roofs, 0 elsewhere. The same arguments give the same
    bytes.

    Raises:
        DiskFull: no space was left.
    """
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    world, across = World(seed), max(1, round(count**0.5))
    high, wide = size_px

    def make(number: int) -> None:
        name = f"scene-{number + 1:03d}.tif"
        row, col = divmod(number, across)
        window = Window(row * high, col * wide, high, wide)
        x_HWC, y_HW = world.render(window)
        _write(folder / "images" / name, window, BAND_NAMES, np.uint16, [(window, x_HWC)])
        _write(folder / "masks" / name, window, ("class",), np.uint8, [(window, y_HW[:, :, None])])

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(make, range(count)))


def make_raster(path: Path, size_px: tuple[int, int] = (2048, 3072), seed: int = 0) -> None:
    """Write one raster of (height, width) pixels, north of all scenes of that seed, in flat memory.

    Raises:
        DiskFull: no space was left.
    """
    world, (high, wide) = World(seed), size_px
    whole = Window(-high, 0, high, wide)

    def parts() -> Iterator[tuple[Window, npt.NDArray[np.uint16]]]:
        for row in range(-high, 0, _STRIP_PX):
            for col in range(0, wide, _STRIP_PX):
                part = Window(row, col, min(_STRIP_PX, -row), min(_STRIP_PX, wide - col))
                yield part, world.render(part)[0]

    _write(path, whole, BAND_NAMES, np.uint16, parts())


def _write(
    path: Path,
    window: Window,
    bands: tuple[str, ...],
    dtype: Any,
    parts: Iterable[tuple[Window, npt.NDArray[Any]]],
) -> None:
    """Write (window, values_HWC) pairs as a tiled GeoTIFF that covers `window` of the world."""
    import rasterio
    from rasterio import Affine
    from rasterio.crs import CRS
    from rasterio.windows import Window as Place

    west, north = _WEST_M + window.col * PIXEL_M, _NORTH_M - window.row * PIXEL_M
    profile = {
        "driver": "GTiff", "height": window.height, "width": window.width, "count": len(bands),
        "dtype": dtype, "crs": CRS.from_epsg(EPSG), "transform": Affine(PIXEL_M, 0, west, 0, -PIXEL_M, north),
        "tiled": True, "blockxsize": 256, "blockysize": 256, "interleave": "pixel",
        "compress": "deflate", "predictor": 2, "zlevel": 4,
    }  # fmt: skip

    def fill(part: Path) -> None:
        with rasterio.Env(GDAL_CACHEMAX=_CACHE_MIB), rasterio.open(part, "w", **profile) as file:
            for here, values_HWC in parts:
                place = Place(here.col - window.col, here.row - window.row, here.width, here.height)
                file.write(np.moveaxis(values_HWC, 2, 0), window=place)
            for number, name in enumerate(bands, 1):
                file.set_band_description(number, name)

    write_whole(path, fill)

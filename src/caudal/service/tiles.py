"""Tiles of a raster for a map in a browser, and what there is to know of it. Runs in a child (`sandbox.py`).

Of a raster without a place on Earth the tiles are those of the picture itself, from its upper left corner.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from morecantile import Tile
from rasterio.transform import from_bounds
from rio_tiler.colormap import cmap
from rio_tiler.errors import InvalidBandName, TileOutsideBounds
from rio_tiler.io import ImageReader, Reader
from rio_tiler.models import ImageData
from rio_tiler.reader import read

from caudal.core.messages import _
from caudal.service.denied import Denied
from caudal.service.serving import Limits

TILE_PX = 256
_DRIVERS = {b"II": "GTiff", b"MM": "GTiff", b"\x89P": "PNG", b"\xff\xd8": "JPEG"}
"""By the first two bytes: no other driver of GDAL ever sees a file, so that none follows what is in it."""
_CACHE_BYTES = 64 * 2**20
_STRETCH_PX = 512
_REMEMBERED = 64
_STRETCH = (2, 98)  # percent


@contextmanager
def _opened(limits: Limits, path: str) -> Iterator[tuple[Reader, Any]]:
    """Reader and data set, if they are within the limits."""
    options = {
        "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # no neighbour of the file is looked at
        "GDAL_PAM_ENABLED": "NO",
        "GDAL_CACHEMAX": _CACHE_BYTES,
        "GDAL_NUM_THREADS": "1",
        "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": ".none",
    }
    with open(path, "rb") as file:
        driver = _DRIVERS.get(file.read(2))
    if driver is None:
        raise Denied("format", _("This is no TIFF, PNG or JPEG."), _("Only those can be shown on a map."))
    with rasterio.Env(**options), rasterio.open(path, driver=driver) as dataset:
        px = dataset.width * dataset.height
        block_px = max(height * width for height, width in dataset.block_shapes)
        each = max(np.dtype(dtype).itemsize for dtype in dataset.dtypes)
        if px > limits.raster_px or dataset.count > limits.bands or block_px * each > limits.block:
            raise Denied("too_large", _("The raster is larger than is allowed."), _("Raise the limits."))
        kind = Reader if dataset.crs else ImageReader
        with kind(None, dataset=dataset) as reader:
            yield reader, dataset


def about(limits: Limits, path: str) -> dict[str, Any]:
    """Size, bands, place, zoom levels, and a stretch for each band from its 2nd to its 98th percentile.

    Raises:
        Denied: larger than is allowed.
    """
    with _opened(limits, path) as (reader, dataset):
        placed = bool(dataset.crs)
        bounds = reader.get_geographic_bounds("EPSG:4326") if placed else tuple(reader.bounds)
        return {
            "height": dataset.height,
            "width": dataset.width,
            "bands": dataset.count,
            "band_names": [name or f"b{number}" for number, name in enumerate(dataset.descriptions, 1)],
            "dtype": dataset.dtypes[0],
            "nodata": _finite(dataset.nodata),
            "crs": dataset.crs.to_string() if placed else None,
            "bounds": [float(value) for value in bounds],
            "minzoom": int(reader.minzoom),
            "maxzoom": int(reader.maxzoom),
            "stretch": _stretch(limits, path),
        }


def tile(
    limits: Limits,
    path: str,
    z: int,
    x: int,
    y: int,
    bidx: Sequence[int] = (),
    rescale: Sequence[tuple[float, float]] = (),
    colormap_name: str | None = None,
) -> tuple[dict[str, Any], bytes]:
    """A PNG of 256 × 256 pixels, clear where there is no data.

    Bands count from 1: one is grey or coloured by the map, three are red, green and blue. Without `rescale`
    whatever is not made of bytes is stretched from its 2nd to its 98th percentile.

    Raises:
        Denied: outside of the raster, no such band or colours, or it would read too many pixels.
    """
    with _opened(limits, path) as (reader, dataset):
        bands = list(bidx) or ([1, 2, 3] if dataset.count >= 3 and colormap_name is None else [1])
        if any(not 1 <= band <= dataset.count for band in bands) or len(bands) not in (1, 3):
            raise Denied(
                "outside",
                _("There is no such band; the raster has {bands}.").format(bands=dataset.count),
                _("Give one band, or three."),
            )
        if colormap_name is not None and colormap_name not in cmap.list():
            raise Denied(
                "colormap",
                _("There is no colour map “{name}”.").format(name=colormap_name),
                _("Use a name that matplotlib knows, in lower case, like viridis or inferno."),
            )
        if not reader.tile_exists(x, y, z):
            raise Denied("outside", _("The tile is outside of the raster."), "")
        _refuse_large(limits, dataset, 2.0 ** max(0, int(reader.maxzoom) - z))
        try:
            if dataset.crs and z < reader.minzoom:
                image = _from_afar(reader, dataset, x, y, z, bands)
            else:
                image = reader.tile(x, y, z, tilesize=TILE_PX, indexes=tuple(bands))
        except (TileOutsideBounds, InvalidBandName):
            raise Denied("outside", _("The tile is outside of the raster."), "") from None
        ranges = list(rescale)
        if not ranges and (dataset.dtypes[0] != "uint8"):
            found = _stretch(limits, path)
            ranges = [found[band - 1] for band in bands]
        if ranges:
            image.rescale(in_range=[(low, max(high, low + 1e-9)) for low, high in ranges])
        if colormap_name is not None and len(bands) == 1:
            colours: Any = cmap.get(colormap_name)
            return {}, image.render(img_format="PNG", colormap=colours)
        return {}, image.render(img_format="PNG")


def _from_afar(reader: Reader, dataset: Any, x: int, y: int, z: int, bands: Sequence[int]) -> ImageData:
    """A tile that is larger than the raster, warped straight to its pixels.

    Through a raster as fine as the file, as closer tiles are made, a tile of the whole world takes minutes.
    """
    bounds = reader.tms.xy_bounds(Tile(x=x, y=y, z=z))
    there = {"transform": from_bounds(*bounds, TILE_PX, TILE_PX), "width": TILE_PX, "height": TILE_PX}
    return read(dataset, dst_crs=reader.tms.rasterio_crs, indexes=tuple(bands), vrt_options=there)


def _refuse_large(limits: Limits, dataset: Any, shrink: float) -> None:
    """A tile far out of a raster without overviews would read all of it.

    `shrink`: pixels of the raster for one of the tile, on a side.
    """
    read = max((level for level in dataset.overviews(1) if level <= shrink), default=1)
    side = math.ceil(TILE_PX * shrink / read) * 2
    px = min(side, math.ceil(dataset.width / read)) * min(side, math.ceil(dataset.height / read))
    if px > limits.tile_px:
        raise Denied(
            "too_costly",
            _("This tile would take {px} pixels of the raster.").format(px=px),
            _("Look at it closer, or write the raster with overviews, as a COG has."),
        )


_stretches: OrderedDict[tuple[int, int, int], list[tuple[float, float]]] = OrderedDict()


def _stretch(limits: Limits, path: str) -> list[tuple[float, float]]:
    # The path names an open file of the server, and is another each time.
    now = Path(path).stat()
    mark = now.st_ino, now.st_size, now.st_mtime_ns
    if mark not in _stretches:
        _stretches[mark] = _percentiles(limits, path)
    while len(_stretches) > _REMEMBERED:
        _stretches.popitem(last=False)
    return _stretches[mark]


def _percentiles(limits: Limits, path: str) -> list[tuple[float, float]]:
    with _opened(limits, path) as (_reader, dataset):
        largest = max([1, *dataset.overviews(1)])
        if dataset.width * dataset.height / largest**2 > limits.tile_px:
            return [(0.0, 1.0)] * int(dataset.count)  # it cannot be known at a price that is allowed
        scale = max(dataset.width, dataset.height) / _STRETCH_PX
        shape = (max(1, int(dataset.height / max(1.0, scale))), max(1, int(dataset.width / max(1.0, scale))))
        found = []
        for band in range(1, min(dataset.count, 32) + 1):
            x_HW = dataset.read(band, out_shape=shape, masked=True)
            values = x_HW.compressed()
            values = values[np.isfinite(values)] if values.dtype.kind == "f" else values
            low, high = np.percentile(values, _STRETCH) if len(values) else (0.0, 1.0)
            found.append((float(low), float(high)))
        return found + [(0.0, 1.0)] * (int(dataset.count) - len(found))


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None

"""GeoTIFF, Cloud-Optimized GeoTIFF and BigTIFF: own tile index, one file descriptor, native decoders.

What the native path does not cover (JPEG, LERC, odd bit depths …) is read through GDAL in
`rasterio_source.py`, behind the same contract. Georeference is not read here: see `inference/`.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from caudal.core.geometry import Window
from caudal.data.readers.base import Header, Pixels, Source, valid_mask
from caudal.data.readers.files import open_for_reading
from caudal.data.readers.tiff_blocks import groups
from caudal.data.readers.tiff_decode import decode, group_bytes
from caudal.data.readers.tiff_layout import Foreign, Layout, read_layout


class GeoTiffReader:
    """Reads the first full-resolution image of a TIFF."""

    suffixes: tuple[str, ...] = (".tif", ".tiff")

    def header(self, path: Path) -> Header:
        """Read the header alone; see `Reader.header`.

        Raises:
            UnreadableFile: missing, empty, truncated, no TIFF, or claims that cannot be true.
        """
        fd, size_bytes = open_for_reading(path)
        try:
            return read_layout(fd, path, size_bytes).header()
        except Foreign:
            from caudal.data.readers.rasterio_source import RasterioSource

            with RasterioSource(path) as source:
                return source.header
        finally:
            os.close(fd)

    def open(self, path: Path) -> Source:
        """Open for windowed reads; see `Reader.open`.

        Raises:
            UnreadableFile: as `header`.
        """
        fd, size_bytes = open_for_reading(path)
        try:
            return TiffSource(fd, read_layout(fd, path, size_bytes))
        except Foreign:
            os.close(fd)
            from caudal.data.readers.rasterio_source import RasterioSource

            return RasterioSource(path)
        except BaseException:
            os.close(fd)
            raise


class TiffSource:
    """An open TIFF; owns the file descriptor. Reads share nothing that changes, so threads need no lock."""

    def __init__(self, fd: int, layout: Layout) -> None:
        self.header: Header = layout.header()
        self._layout = layout
        self._fd = fd
        self._closing = threading.Lock()

    def read(self, window: Window) -> Pixels:
        """The pixels of `window`: x_HWC in the file's dtype, and which are valid; see `Source.read`.

        Raises:
            UnreadableFile: a block is missing, truncated or broken.
        """
        header, layout = self.header, self._layout
        assert window.intersect(header.window) == window, "a window must lie inside the image"
        bands, size = header.bands, (window.height, window.width)
        x_HWC = np.empty((*size, bands), header.dtype)
        opaque_HW = np.ones(size, np.bool_) if header.has_alpha else None
        for group in groups(layout, window):
            first, last = group.plane, group.plane + layout.plane_samples
            for part, block in decode(self._fd, layout, group, window):
                rows, cols = part.within(window)
                if first < bands:
                    x_HWC[rows, cols, first : min(last, bands)] = block[:, :, : bands - first]
                if opaque_HW is not None and last > bands:
                    opaque_HW[rows, cols] = block[:, :, -1] != 0
                del block  # or it would live on while the next one is decoded
        valid_HW = valid_mask(x_HWC, header.nodata)
        if opaque_HW is not None and not opaque_HW.all():
            valid_HW = opaque_HW if valid_HW is None else valid_HW & opaque_HW
        return Pixels(x_HWC, valid_HW)

    def scratch_bytes(self, window: Window) -> int:
        """The most bytes that `read(window)` holds beside its result; see `Source.scratch_bytes`."""
        layout, header = self._layout, self.header
        blocks = max((group_bytes(layout, group) for group in groups(layout, window)), default=0)
        masks = header.bands + 2 if header.nodata is not None or header.dtype.kind == "f" else 0
        return max(blocks, window.area_px * masks) + window.area_px * 2 * header.has_alpha

    def close(self) -> None:
        """Give the file back."""
        with self._closing:
            fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

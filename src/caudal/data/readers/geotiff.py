"""GeoTIFF, Cloud-Optimized GeoTIFF and BigTIFF: own tile index, windows of blocks, native decoders.

A file on disk is read where its blocks lie; one elsewhere in fewer and larger reads (`round_trips.py`). What
the native path does not cover (odd codecs and bit depths …) is read through GDAL in `rasterio_source.py`,
behind the same contract, on disk only. Georeference is not read here: see `inference/`.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

import numpy as np

from caudal.core.geometry import Window
from caudal.core.messages import _
from caudal.data.byte_file import ByteFile
from caudal.data.locations import located, open_with_head
from caudal.data.readers.base import Array, Header, Pixels, Source, valid_mask
from caudal.data.readers.tiff_blocks import groups, pieces
from caudal.data.readers.tiff_decode import decode, group_bytes
from caudal.data.readers.tiff_layout import Foreign, Layout, read_layout
from caudal.data.round_trips import Runs, held_bytes, runs_of
from caudal.data.unreadable import unreadable
from caudal.data.url import Location, Url


class GeoTiffReader:
    """Reads the first full-resolution image of a TIFF."""

    suffixes: tuple[str, ...] = (".tif", ".tiff")

    def header(self, path: str | Location) -> Header:
        """Read the header alone; see `Reader.header`.

        Raises:
            UnreadableFile: missing, empty, truncated, no TIFF, or claims that cannot be true.
        """
        with self.open(path) as source:
            return source.header

    def open(self, path: str | Location) -> Source:
        """Open for windowed reads; see `Reader.open`.

        Raises:
            UnreadableFile: as `header`; or it is elsewhere, and of a kind that GDAL alone reads.
        """
        path = located(path)
        file, head = open_with_head(path)
        try:
            return TiffSource(file, read_layout(head.read_into, path, file.size_bytes))
        except Foreign:
            file.close()
        except BaseException:
            file.close()
            raise
        if isinstance(path, Url):
            raise unreadable(
                path,
                _("it is a TIFF of a kind that is read on disk alone"),
                _("Copy it to disk, or write it again with DEFLATE, LZW or ZSTD compression."),
            )
        from caudal.data.readers.rasterio_source import RasterioSource

        return RasterioSource(path)


class TiffSource:
    """An open TIFF; owns its file. Reads share nothing that changes, so threads need no lock."""

    def __init__(self, file: ByteFile, layout: Layout) -> None:
        self.header: Header = layout.header()
        self._file, self._layout = file, layout
        self._far = isinstance(layout.path, Url)

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
        file = Runs(self._file, runs_of(pieces(layout, window))) if self._far else self._file
        for group in groups(layout, window):
            first, last = group.plane, group.plane + layout.plane_samples

            def place(part: Window, first: int = first, last: int = last) -> Array | None:
                return x_HWC[*part.within(window), first:last] if last <= bands else None

            for part, block in decode(file.read_into, layout, group, window, place):
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
        if self._far:
            blocks += held_bytes(runs_of(pieces(layout, window)))
        masks = header.bands + 2 if header.nodata is not None or header.dtype.kind == "f" else 0
        return max(blocks, window.area_px * masks) + window.area_px * 2 * header.has_alpha

    def close(self) -> None:
        """Give the file back."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

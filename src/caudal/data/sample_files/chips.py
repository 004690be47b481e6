"""TIFF chips as samples: one raster a file, with all its bands, brought to the size that is asked for.

Pixels are read by the reader of scenes, whole; a chip is a small piece. Values that are missing (NaN, the
file's nodata, transparent) become the mean of the band's others.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from caudal.core.messages import _
from caudal.data.byte_file import ByteFile
from caudal.data.locations import located
from caudal.data.readers import reader_for
from caudal.data.readers.base import Header, Pixels
from caudal.data.sample_files.base import Array, Field, Part
from caudal.data.unreadable import unreadable

_AS_THEY_ARE = ("uint8", "uint16", "int16", "float32")  # dtypes that are resized without loss
_MOST_BYTES = 2**28


class ChipReader:
    """Reads TIFF files as samples of `side_px`, one band or many. See `SampleReader`."""

    suffixes: tuple[str, ...] = (".tif", ".tiff")

    def __init__(self, side_px: int) -> None:
        self.side_px = side_px

    def part(self, file: ByteFile, whole: bool) -> Part:
        """One sample, `image`: (side, side, bands), with or without `whole`. See `SampleReader.part`.

        Raises:
            UnreadableFile: no TIFF, a broken header, or no chip: more than 256 MiB of pixels.
        """
        header = _header(file.name)
        if header.decoded_bytes > _MOST_BYTES:
            raise unreadable(
                Path(file.name),
                _("it has {height}×{width} pixels of {bands} bands, which is no chip").format(
                    height=header.height, width=header.width, bands=header.bands
                ),
                _("Cut it into pieces; each becomes a picture of its own."),
            )
        dtype = header.dtype if str(header.dtype) in _AS_THEY_ARE else np.dtype(np.float32)
        shape = (self.side_px, self.side_px, header.bands)
        return Part(
            fields=(Field("image", dtype, shape),),
            ends=np.array([1], np.int64),
            # Decoded, its bands apart, and as numbers with a point while missing ones are filled.
            scratch_bytes=3 * header.decoded_bytes + 8 * header.height * header.width,
            codec=header.codec,
        )

    def read(self, file: ByteFile, part: Part, block: int, into: Mapping[str, Array]) -> None:
        """Decode the chip into `into["image"]`, (1, side, side, bands). See `SampleReader.read`.

        Raises:
            UnreadableFile: truncated, damaged, or another chip than when `part` was read.
        """
        out_HWC = into["image"][0]
        path = located(file.name)
        with reader_for(path).open(path) as source:
            header = source.header
            if header.bands != out_HWC.shape[2] or header.decoded_bytes > _MOST_BYTES:
                raise unreadable(Path(file.name), _("its size changed since it was listed"))
            pixels = source.read(header.window)
        _resize_into(pixels, out_HWC)


def _header(name: str) -> Header:
    path = located(name)
    return reader_for(path).header(path)


def _resize_into(pixels: Pixels, out_HWC: Array) -> None:
    import cv2

    high, wide = out_HWC.shape[:2]
    valid_HW: Any = pixels.valid_HW
    for k in range(out_HWC.shape[2]):
        x_HW: Array = np.ascontiguousarray(pixels.x_HWC[:, :, k])
        if x_HW.dtype != out_HWC.dtype:
            x_HW = x_HW.astype(out_HWC.dtype)
        if valid_HW is not None and not valid_HW.all():
            known = x_HW[valid_HW]
            x_HW[~valid_HW] = known.mean() if len(known) else 0
        small = x_HW.shape[0] >= high and x_HW.shape[1] >= wide
        out_HWC[:, :, k] = cv2.resize(
            x_HW, (wide, high), interpolation=cv2.INTER_AREA if small else cv2.INTER_LINEAR
        )

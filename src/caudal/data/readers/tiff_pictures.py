"""Blocks of a TIFF that are pictures of their own (JPEG, LERC, WebP) into pixels, one after the other.

Each decoder checks what a block's own header claims against the layout before it allocates, and lets go of
the interpreter's lock while it decodes.
"""

from __future__ import annotations

from collections.abc import Iterator

import imagecodecs
import numpy as np

from caudal.core.geometry import Window
from caudal.core.messages import _
from caudal.data.readers.base import Array
from caudal.data.readers.tiff_blocks import Group, broken, gather
from caudal.data.readers.tiff_jpeg import decode_jpeg
from caudal.data.readers.tiff_layout import JPEG, LERC, PICTURES, Layout
from caudal.data.readers.tiff_lerc import decode_lerc
from caudal.data.readers.tiff_tags import ReadInto


def picture_bytes(layout: Layout, group: Group) -> int:
    """The most bytes that decoding holds beside the group's encoded blocks.

    One decoded block and what its decoder makes of it on the way: a JPEG in several scans holds coefficients
    of two bytes, WebP holds four samples, LERC a mask and once more what was packed.
    """
    return 4 * layout.block_bytes + 2 * int(layout.counts[group.index()].max()) + 2**17


def decode_pictures(
    read: ReadInto, layout: Layout, group: Group, window: Window
) -> Iterator[tuple[Window, Array]]:
    """The pixels that `group` has of `window`, block by block: where each lies, and x_HWC.

    Raises:
        UnreadableFile: a block is truncated or broken.
    """
    encoded, places, counts = gather(read, layout, group)
    height, width = layout.block
    columns = group.right - group.left
    for number, (place, count) in enumerate(zip(places.tolist(), counts.tolist(), strict=True)):
        row, col = group.top + number // columns, group.left + number % columns
        rows = height if layout.tiled else min(height, layout.height - row * height)
        block = Window(row * height, col * width, rows, width)
        try:
            x_HWC = _decode(layout, bytes(encoded[place : place + count]), rows)
        except ValueError as error:
            raise broken(layout, Group(group.plane, row, row + 1, col, col + 1), str(error)) from None
        wanted = window.intersect(block)
        yield wanted, x_HWC[wanted.within(block)]
        del x_HWC  # or it would live on while the next one is decoded


def _decode(layout: Layout, data: bytes, rows: int) -> Array:
    """One block: uint8 or the layout's type, (rows, block width, samples).

    Raises:
        ValueError: it is truncated or broken; the message is a clause.
    """
    assert layout.codec in PICTURES
    height, width = layout.block
    samples = layout.plane_samples
    if layout.codec == JPEG:
        shape = height, width, samples
        return decode_jpeg(data, layout.jpeg_tables, shape, rows)
    shape = rows, width, samples
    if layout.codec == LERC:
        return decode_lerc(data, layout.lerc_packing, shape, layout.dtype, layout.has_alpha)
    x_HWC = np.empty(shape, np.uint8)
    try:
        imagecodecs.webp_decode(data, hasalpha=samples == 4, out=x_HWC)
    except imagecodecs.WebpError as error:
        raise ValueError(str(error)) from None
    except ValueError:  # its own header asks for another array
        raise ValueError(_("it decodes to another size")) from None
    return x_HWC

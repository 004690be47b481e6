"""Compressed blocks into pixels by libtiff, many in one call that does not hold the interpreter's lock.

The touched blocks' bytes are gathered behind a small TIFF header in memory, a *capsule*, and imagecodecs'
libtiff decodes that. Its LZW is half again as fast as the other one in imagecodecs, it undoes predictors and
byte order in passing, and one call for a hundred small strips costs a fraction of a hundred calls. The header
is ours, so a hostile file has only its compressed bytes to attack with.
"""

from __future__ import annotations

import struct

import imagecodecs
import numpy as np

from caudal.core.geometry import Window
from caudal.core.messages import _
from caudal.data.readers.base import Array
from caudal.data.readers.tiff_blocks import Group, broken, gather
from caudal.data.readers.tiff_layout import Counts, Layout
from caudal.data.readers.tiff_tags import ReadInto

_SHORT, _LONG = 3, 4


def capsule_bytes(layout: Layout, blocks: int) -> int:
    """The most bytes that a capsule's header takes."""
    return 512 + 4 * layout.samples + 8 * blocks


def decode_capsule(read: ReadInto, layout: Layout, group: Group) -> Array:
    """The pixels of the whole group: x_HWC of the plane's samples, padding of tiles included.

    Raises:
        UnreadableFile: a block is truncated or broken.
    """
    outer = group.window(layout)
    counts = layout.counts[group.index()].ravel()
    entries, head_bytes = _entries(layout, outer, counts)
    buffer, places, _counts = gather(read, layout, group, head_bytes)
    _write_head(buffer, layout, entries, places)
    try:
        x = np.asarray(imagecodecs.tiff_decode(buffer))  # type: ignore[arg-type] # it takes any buffer
    except (imagecodecs.TiffError, ValueError, RuntimeError) as error:
        raise broken(layout, group, str(error)) from None
    if x.dtype != layout.dtype or x.size != outer.area_px * layout.plane_samples:
        raise broken(layout, group, _("it decodes to another size"))
    return x.reshape(outer.height, outer.width, layout.plane_samples)


_Entry = tuple[int, int, list[int]]


def _entries(layout: Layout, outer: Window, counts: Counts) -> tuple[list[_Entry], int]:
    """The tags of a capsule, offsets still missing, and the bytes that its header takes."""
    samples = layout.plane_samples
    if layout.tiled:
        shape = [(322, _LONG, [layout.block[1]]), (323, _LONG, [layout.block[0]])]
        lists: list[_Entry] = [(324, _LONG, [0] * len(counts)), (325, _LONG, counts.tolist())]
    else:
        shape = [(278, _LONG, [layout.block[0]])]
        lists = [(273, _LONG, [0] * len(counts)), (279, _LONG, counts.tolist())]
    entries: list[_Entry] = [
        (256, _LONG, [outer.width]),
        (257, _LONG, [outer.height]),
        (258, _SHORT, [8 * layout.dtype.itemsize] * samples),
        (259, _SHORT, [layout.codec]),
        (262, _SHORT, [1]),
        (277, _SHORT, [samples]),
        (284, _SHORT, [1]),
        (317, _SHORT, [layout.predictor]),
        (338, _SHORT, [0] * (samples - 1)),
        (339, _SHORT, [layout.sample_format] * samples),
        *shape,
        *lists,
    ]
    entries = sorted(entry for entry in entries if entry[2])
    size = 8 + 2 + 12 * len(entries) + 4
    for _code, kind, values in entries:
        size += _outside(kind, values)
    return entries, size


def _outside(kind: int, values: list[int]) -> int:
    """Bytes that a tag's values take outside the directory, rounded up to keep them aligned."""
    size = len(values) * (2 if kind == _SHORT else 4)
    return 0 if size <= 4 else size + size % 4


def _write_head(buffer: memoryview, layout: Layout, entries: list[_Entry], places: Counts) -> None:
    e = layout.byteorder
    struct.pack_into(f"{e}2sHIH", buffer, 0, b"II" if e == "<" else b"MM", 42, 8, len(entries))
    at, free = 10, 8 + 2 + 12 * len(entries) + 4
    for code, kind, values in entries:
        if code in (273, 324):
            values = places.tolist()
        form = f"{e}{len(values)}{'H' if kind == _SHORT else 'I'}"
        struct.pack_into(f"{e}HHI", buffer, at, code, kind, len(values))
        outside = _outside(kind, values)
        if outside:
            struct.pack_into(f"{e}I", buffer, at + 8, free)
            struct.pack_into(form, buffer, free, *values)
            free += outside
        else:
            struct.pack_into(form, buffer, at + 8, *values)
        at += 12

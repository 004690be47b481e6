"""Blocks of a TIFF into arrays, without holding the interpreter's lock.

Compressed blocks go to libtiff in one call for many: the touched blocks' bytes are gathered behind a small
TIFF header in memory, a *capsule*, and imagecodecs decodes that. libtiff's LZW is half again as fast as the
other one in imagecodecs, undoes predictors and byte order in passing, and one call for a hundred small
strips costs a fraction of a hundred calls. The capsule's header is ours, so a hostile file has only its
compressed bytes to attack with.

Uncompressed blocks are read row by row or whole, whichever moves fewer bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import imagecodecs
import numpy as np

from caudal.core.geometry import Window
from caudal.core.messages import _
from caudal.data.readers.base import Array
from caudal.data.readers.files import read_exactly, unreadable
from caudal.data.readers.tiff_layout import RAW, Layout

# Decoded bytes per call: enough to forget the price of a call, little enough to stay in the cache.
_GROUP_BYTES = 2 * 2**20
# Blocks this near to each other in the file are read in one go.
_GAP_BYTES = 4096
_SHORT, _LONG = 3, 4


@dataclass(frozen=True, slots=True)
class Group:
    """A rectangle of blocks of one plane that are decoded together: block rows and columns, half open."""

    plane: int
    top: int
    bottom: int
    left: int
    right: int

    def window(self, layout: Layout) -> Window:
        """The pixels it covers; padding of tiles at the right and lower edge included, of strips not."""
        height, width = layout.block
        bottom = self.bottom * height if layout.tiled else min(layout.height, self.bottom * height)
        return Window(self.top * height, self.left * width, bottom - self.top * height,
                      (self.right - self.left) * width)  # fmt: skip

    def index(self) -> tuple[int, slice, slice]:
        """Where its blocks stand in the layout's index."""
        return self.plane, slice(self.top, self.bottom), slice(self.left, self.right)


def groups(layout: Layout, window: Window) -> Iterator[Group]:
    """The blocks that hold a pixel of `window`, each once, in groups of about `_GROUP_BYTES`."""
    height, width = layout.block
    top, bottom = window.row // height, -(-window.row_end // height)
    left, right = window.col // width, -(-window.col_end // width)
    columns = max(1, min(right - left, _GROUP_BYTES // layout.block_bytes))
    rows = max(1, _GROUP_BYTES // (layout.block_bytes * columns))
    sparse = not layout.counts[:, top:bottom, left:right].all()
    if sparse or layout.codec == RAW:
        rows = columns = 1
    for plane in range(layout.planes):
        for i in range(top, bottom, rows):
            for j in range(left, right, columns):
                yield Group(plane, i, min(i + rows, bottom), j, min(j + columns, right))


def group_bytes(layout: Layout, group: Group) -> int:
    """The most bytes that decoding `group` holds: the gathered file bytes and the decoded blocks."""
    area = group.window(layout).area_px
    decoded = area * layout.plane_samples * layout.dtype.itemsize
    if layout.codec == RAW:
        return decoded
    counts = layout.counts[group.index()]
    return decoded + int(counts.sum()) + counts.size * (_GAP_BYTES + 8) + 512 + 4 * layout.samples


def decode(fd: int, layout: Layout, group: Group, wanted: Window) -> Array:
    """The pixels of `wanted`, which lies inside the group: x_HWC of the plane's samples.

    Raises:
        UnreadableFile: a block is truncated or broken.
    """
    counts = layout.counts[group.index()]
    if not counts.all():
        fill = layout.nodata if layout.nodata is not None else 0
        return np.full((wanted.height, wanted.width, layout.plane_samples), fill, layout.dtype)
    if layout.codec == RAW:
        return _read_raw(fd, layout, group, wanted)
    outer = group.window(layout)
    return _decode_capsule(fd, layout, group, outer)[wanted.within(outer)]


def _read_raw(fd: int, layout: Layout, group: Group, wanted: Window) -> Array:
    outer = group.window(layout)
    samples, dtype = layout.plane_samples, layout.dtype.newbyteorder(layout.byteorder)  # type: ignore[arg-type]
    pixel_bytes = samples * dtype.itemsize
    row_bytes = outer.width * pixel_bytes
    row, col = wanted.row - outer.row, wanted.col - outer.col
    start = int(layout.offsets[group.index()][0, 0]) + row * row_bytes
    # A read costs about as much as moving 16 KiB, so short gaps between rows are read along.
    if row_bytes - wanted.width * pixel_bytes <= 16 * 1024:
        rows = np.empty((wanted.height, outer.width, samples), dtype)
        read_exactly(fd, layout.path, start, _as_bytes(rows))
        return rows[:, col : col + wanted.width]
    rows = np.empty((wanted.height, wanted.width, samples), dtype)
    for i in range(wanted.height):
        place = start + i * row_bytes + col * pixel_bytes
        read_exactly(fd, layout.path, place, _as_bytes(rows[i]))
    return rows


def _as_bytes(x: Array) -> memoryview:
    return x.reshape(-1).view(np.uint8).data


def _decode_capsule(fd: int, layout: Layout, group: Group, outer: Window) -> Array:
    try:
        x = np.asarray(imagecodecs.tiff_decode(_capsule(fd, layout, group, outer)))
    except (imagecodecs.TiffError, ValueError, RuntimeError) as error:
        raise unreadable(layout.path, _broken(group, str(error))) from None
    if x.dtype != layout.dtype or x.size != outer.area_px * layout.plane_samples:
        raise unreadable(layout.path, _broken(group, _("it decodes to another size")))
    return x.reshape(outer.height, outer.width, layout.plane_samples)


def _broken(group: Group, why: str) -> str:
    return _("a block in rows {top}-{bottom}, columns {left}-{right} of its grid is broken ({why})").format(
        top=group.top, bottom=group.bottom - 1, left=group.left, right=group.right - 1, why=why
    )


def _capsule(fd: int, layout: Layout, group: Group, outer: Window) -> bytearray:
    """The blocks of `group` as a TIFF of their own, in the file's byte order."""
    offsets = layout.offsets[group.index()].ravel()
    counts = layout.counts[group.index()].ravel()
    order = np.argsort(offsets, kind="stable")
    starts, ends = offsets[order], (offsets + counts)[order]
    reach = np.maximum.accumulate(ends)
    heads = np.flatnonzero(np.r_[True, starts[1:] - reach[:-1] > _GAP_BYTES])
    span_starts = starts[heads]
    span_sizes = reach[np.r_[heads[1:], len(starts)] - 1] - span_starts
    entries, head_bytes = _entries(layout, outer, counts)
    places = head_bytes + np.cumsum(span_sizes) - span_sizes
    span_of = np.searchsorted(span_starts, offsets, side="right") - 1
    buffer = bytearray(head_bytes + int(span_sizes.sum()))
    _write_head(buffer, layout, entries, offsets - span_starts[span_of] + places[span_of])
    view = memoryview(buffer)
    for start, size, place in zip(span_starts.tolist(), span_sizes.tolist(), places.tolist(), strict=True):
        read_exactly(fd, layout.path, start, view[place : place + size])
    return buffer


_Entry = tuple[int, int, list[int]]


def _entries(layout: Layout, outer: Window, counts: Array) -> tuple[list[_Entry], int]:
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


def _write_head(buffer: bytearray, layout: Layout, entries: list[_Entry], places: Array) -> None:
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

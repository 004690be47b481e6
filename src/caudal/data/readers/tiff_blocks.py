"""Which blocks of a TIFF hold a window, and their bytes from the file, many at a time. Decodes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from caudal.core.errors import UnreadableFile
from caudal.core.geometry import Window
from caudal.core.messages import _
from caudal.data.readers.tiff_layout import RAW, Counts, Layout
from caudal.data.readers.tiff_tags import ReadInto
from caudal.data.unreadable import unreadable

# Decoded bytes per call: enough to forget the price of a call, little enough to stay in the cache.
_GROUP_BYTES = 2 * 2**20
# Blocks this near to each other in the file are read in one go.
GAP_BYTES = 4096


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
    top, bottom, left, right = _touched(layout, window)
    columns = max(1, min(right - left, _GROUP_BYTES // layout.block_bytes))
    rows = max(1, _GROUP_BYTES // (layout.block_bytes * columns))
    sparse = not layout.counts[:, top:bottom, left:right].all()
    if sparse or layout.codec == RAW:
        rows = columns = 1
    for plane in range(layout.planes):
        for i in range(top, bottom, rows):
            for j in range(left, right, columns):
                yield Group(plane, i, min(i + rows, bottom), j, min(j + columns, right))


def pieces(layout: Layout, window: Window) -> list[tuple[int, int]]:
    """Where in the file the blocks lie that hold a pixel of `window`: first byte, and the one after the last.

    Blocks that were never written are left out.
    """
    top, bottom, left, right = _touched(layout, window)
    starts = layout.offsets[:, top:bottom, left:right].ravel()
    counts = layout.counts[:, top:bottom, left:right].ravel()
    written = counts > 0
    return list(zip(starts[written].tolist(), (starts + counts)[written].tolist(), strict=True))


def _touched(layout: Layout, window: Window) -> tuple[int, int, int, int]:
    """Block rows and columns that hold a pixel of `window`, half open."""
    height, width = layout.block
    top, bottom = window.row // height, -(-window.row_end // height)
    left, right = window.col // width, -(-window.col_end // width)
    return top, bottom, left, right


def gather(
    read: ReadInto, layout: Layout, group: Group, head_bytes: int = 0
) -> tuple[memoryview, Counts, Counts]:
    """A group's encoded blocks after `head_bytes` zeros, and where each of them starts and how long it is.

    Raises:
        UnreadableFile: the file ends before, or the disk fails.
    """
    offsets = layout.offsets[group.index()].ravel()
    counts = layout.counts[group.index()].ravel()
    order = np.argsort(offsets, kind="stable")
    starts = offsets[order]
    reach = np.maximum.accumulate((offsets + counts)[order])
    heads = np.flatnonzero(np.r_[True, starts[1:] - reach[:-1] > GAP_BYTES])
    span_starts = starts[heads]
    span_sizes = reach[np.r_[heads[1:], len(starts)] - 1] - span_starts
    places = head_bytes + np.cumsum(span_sizes) - span_sizes
    span_of = np.searchsorted(span_starts, offsets, side="right") - 1
    buffer = np.empty(head_bytes + int(span_sizes.sum()), np.uint8)
    buffer[:head_bytes] = 0
    view = buffer.data
    for start, size, place in zip(span_starts.tolist(), span_sizes.tolist(), places.tolist(), strict=True):
        read(start, view[place : place + size])
    return view, offsets - span_starts[span_of] + places[span_of], counts


def broken(layout: Layout, group: Group, why: str) -> UnreadableFile:
    """The error for a block of `group` that cannot be decoded."""
    place = _("rows {top}-{bottom}, columns {left}-{right} of its grid").format(
        top=group.top, bottom=group.bottom - 1, left=group.left, right=group.right - 1
    )
    return unreadable(layout.path, _("a block in {place} is broken ({why})").format(place=place, why=why))

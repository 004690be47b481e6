"""Rectangles of pixels.

Rows grow downwards, columns to the right, both from 0; a window ends before `row + height`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle of a raster, in pixels."""

    row: int
    col: int
    height: int
    width: int

    @property
    def row_end(self) -> int:
        """One past the last row."""
        return self.row + self.height

    @property
    def col_end(self) -> int:
        """One past the last column."""
        return self.col + self.width

    @property
    def area_px(self) -> int:
        """How many pixels it holds."""
        return self.height * self.width

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of an array whose first pixel is the raster's first pixel."""
        return slice(self.row, self.row_end), slice(self.col, self.col_end)

    def within(self, outer: Window) -> tuple[slice, slice]:
        """Index of this window in an array that holds `outer`."""
        row, col = self.row - outer.row, self.col - outer.col
        return slice(row, row + self.height), slice(col, col + self.width)

    def clip(self, height: int, width: int) -> Window:
        """The part of it inside a raster of `height` × `width`; may be empty."""
        row, col = max(0, self.row), max(0, self.col)
        return Window(
            row, col, max(0, min(height, self.row_end) - row), max(0, min(width, self.col_end) - col)
        )

    def intersect(self, other: Window) -> Window:
        """The pixels in both; may be empty."""
        row, col = max(self.row, other.row), max(self.col, other.col)
        return Window(
            row,
            col,
            max(0, min(self.row_end, other.row_end) - row),
            max(0, min(self.col_end, other.col_end) - col),
        )


def blocks_touched(window: Window, block: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """The (row, column) numbers of the blocks of size `block` that hold a pixel of `window`."""
    for i in range(window.row // block[0], -(-window.row_end // block[0])):
        for j in range(window.col // block[1], -(-window.col_end // block[1])):
            yield i, j


def round_up(value: int, multiple: int) -> int:
    """The least multiple of `multiple` that is not below `value`."""
    return -(-value // multiple) * multiple

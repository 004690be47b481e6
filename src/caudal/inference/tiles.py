"""Which windows of a raster go through the model, and which pixels each one completes.

Pure geometry: reads nothing, knows no model. Two ways to cut:

* "exact": the raster is parted into cores. A tile reads its core and at least `context` pixels around it, but
  none beyond the raster, so that the model's own padding falls on its true edge; the scores of the core are
  kept. With `context` at least the radius of the receptive field this equals the model on the whole raster.
* "blend": tiles start at multiples of `core` and overlap by `2 × context`, where their scores cross-fade.
  When tiles come in order, tile (i, j) completes everything of its window but the strips that the next row
  and the next column go on with.

In both, a tile starts at a multiple of the model's `multiple`, and its size is one too unless it ends at the
raster's bottom or right edge. The last tile of a row or column takes up what would be a sliver: it never
reads more than an inner tile does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from caudal.core.errors import UsageError
from caudal.core.geometry import Window, round_up
from caudal.core.messages import _

Mode = Literal["blend", "exact"]


@dataclass(frozen=True, slots=True)
class Tile:
    """One window to `read`, and the part of it, `finish`, that is complete once it was scored."""

    row_index: int
    col_index: int
    read: Window
    finish: Window


@dataclass(frozen=True, slots=True)
class TileGrid:
    """The tiles of a raster of `height` × `width` px, row by row.

    `core` is the step between tiles, `context` what a tile sees beyond its core, `multiple` the model's
    stride; all in px. Iterating gives every `Tile` in the order in which `blend` and `mosaic` want them.

    Raises:
        UsageError: a size below 1, a core that is no multiple of `multiple`, or an overlap above `core`.
    """

    height: int
    width: int
    core: int
    context: int
    multiple: int = 1
    mode: Mode = "blend"

    def __post_init__(self) -> None:
        if min(self.height, self.width, self.core, self.multiple) < 1 or self.context < 0:
            raise UsageError(
                _("Tiles of {core} px with {context} px of context cannot cover {height}×{width} px.").format(
                    core=self.core, context=self.context, height=self.height, width=self.width
                ),
                _("Sizes start at 1 px, the context at 0."),
            )
        if self.core % self.multiple:
            raise UsageError(
                _("A tile step of {core} px is no multiple of the model's stride, {multiple} px.").format(
                    core=self.core, multiple=self.multiple
                ),
                _("Use {core} px.").format(core=round_up(self.core, self.multiple)),
                core=self.core,
                multiple=self.multiple,
            )
        if self.mode == "blend" and self.overlap > self.core:
            raise UsageError(
                _("Tiles that overlap by {overlap} px cannot step by {core} px.").format(
                    overlap=self.overlap, core=self.core
                ),
                _("Use a step of at least {core} px, or less context.").format(
                    core=round_up(self.overlap, self.multiple)
                ),
                core=self.core,
                context=self.context,
            )

    @property
    def overlap(self) -> int:
        """Pixels that neighbours share in "blend": twice the context, rounded up to the stride; else 0."""
        return round_up(2 * self.context, self.multiple) if self.mode == "blend" else 0

    @property
    def rows(self) -> int:
        """How many rows of tiles."""
        return self._count(self.height)

    @property
    def cols(self) -> int:
        """How many columns of tiles."""
        return self._count(self.width)

    @property
    def largest(self) -> tuple[int, int]:
        """Height and width in px that no tile exceeds, padded to the stride."""
        reach = self.overlap if self.mode == "blend" else 2 * round_up(self.context, self.multiple)
        full = self.core + reach
        return (
            min(full, round_up(self.height, self.multiple)),
            min(full, round_up(self.width, self.multiple)),
        )

    def __len__(self) -> int:
        return self.rows * self.cols

    def __iter__(self) -> Iterator[Tile]:
        for row in range(self.rows):
            for col in range(self.cols):
                yield self.tile(row, col)

    def tile(self, row_index: int, col_index: int) -> Tile:
        """The tile in that row and column of the grid."""
        row, row_end = self._read(self.height, row_index)
        col, col_end = self._read(self.width, col_index)
        top, bottom = self._finish(self.height, row_index)
        left, right = self._finish(self.width, col_index)
        return Tile(
            row_index,
            col_index,
            Window(row, col, row_end - row, col_end - col),
            Window(top, left, bottom - top, right - left),
        )

    def finish_cols(self, col_index: int) -> tuple[int, int]:
        """The first column that tiles of that grid column complete, and one past the last."""
        return self._finish(self.width, col_index)

    def _count(self, size: int) -> int:
        # A rest no wider than what an inner tile reads beyond its core needs no tile of its own.
        spare = self.overlap if self.mode == "blend" else self.context
        return max(1, -(-(size - spare) // self.core))

    def _finish(self, size: int, index: int) -> tuple[int, int]:
        last = index == self._count(size) - 1
        return index * self.core, size if last else (index + 1) * self.core

    def _read(self, size: int, index: int) -> tuple[int, int]:
        start, _end = self._finish(size, index)
        if self.mode == "blend":
            return start, min(size, start + self.core + self.overlap)
        # At the raster's edges a tile reads further inwards instead, so that all tiles have one shape.
        full = self.core + 2 * round_up(self.context, self.multiple)
        begin = start - round_up(self.context, self.multiple)
        begin = max(0, min(begin, round_up(size - full, self.multiple)))
        return begin, min(size, begin + full)

"""Which rows of a raster are decoded at once, so that rows of tiles that overlap share what they decode.

A row of tiles reads some rows of the raster that the next one reads again, and a file's blocks begin and end
elsewhere: decoded for each row of tiles anew, blocks of 256 px cost half as much again, blocks of 512 px
twice. So rows are cut where blocks end, and what the next row of tiles needs is kept, as wide as the raster.
Where that would be too much to keep, each row of tiles decodes its own.

Pure geometry: decodes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from caudal.core.geometry import round_up
from caudal.core.units import MIB
from caudal.inference.tiles import TileGrid

MOST_CARRIED_BYTES = 12 * MIB
_LEAST_PX = 128  # a read has a price of its own, so smaller blocks are read together


@dataclass(frozen=True, slots=True)
class Bands:
    """Bands of `unit` rows from the raster's top; without it, one for each row of tiles, of all it reads."""

    grid: TileGrid
    unit: int | None

    def of(self, row_index: int) -> range:
        """The numbers of the bands that hold a row of those tiles."""
        if self.unit is None:
            return range(row_index, row_index + 1)
        if row_index >= self.grid.rows:
            return range(0)
        read = self.grid.tile(row_index, 0).read
        return range(read.row // self.unit, -(-read.row_end // self.unit))

    def rows(self, band: int) -> tuple[int, int]:
        """The first row of the raster in a band, and one past the last."""
        if self.unit is None:
            read = self.grid.tile(band, 0).read
            return read.row, read.row_end
        return band * self.unit, min(self.grid.height, (band + 1) * self.unit)

    @property
    def carried_px(self) -> int:
        """The most rows that are kept from one row of tiles to the next."""
        if self.unit is None:
            return 0
        shared = [self.of(row).stop - self.of(row + 1).start for row in range(self.grid.rows - 1)]
        return self.unit * max(0, *shared, 0)

    @property
    def passing_px(self) -> int:
        """The most rows that a row of tiles takes and does not leave to the next."""
        most = max(
            self.rows(self.of(row)[-1])[1] - self.rows(self.of(row)[0])[0] for row in range(self.grid.rows)
        )
        return max(0, most - self.carried_px)


def bands_for(grid: TileGrid, block_px: int, pixel_bytes: int) -> Bands:
    """The bands for a file whose blocks are `block_px` high and whose pixels take `pixel_bytes`, decoded."""
    unit = round_up(_LEAST_PX, block_px)
    shared = Bands(grid, unit)
    small = unit <= grid.core and shared.carried_px * grid.width * pixel_bytes <= MOST_CARRIED_BYTES
    return shared if small else Bands(grid, None)

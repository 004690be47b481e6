"""How large a part of a raster goes through the model at once when it is mapped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class Tile:
    """The `cores_px` that a model's cells fit, largest first.

    Exact where tiles share the model's whole reach, and then only up to rounding; blended tiles of another
    size give other scores along their seams.
    """

    name: ClassVar[str] = "tile"

    def __init__(self, cores_px: Sequence[int], multiple_px: int = 1, exact: bool = False) -> None:
        self.cores_px, self.multiple_px, self.exact = tuple(cores_px), multiple_px, exact

    def positions(self) -> list[int]:
        """Steps between tiles in pixels; the smallest rounded up where the model's cells are larger."""
        fitting = [core for core in self.cores_px if core % self.multiple_px == 0]
        return fitting or [-(-self.cores_px[-1] // self.multiple_px) * self.multiple_px]

"""How large the tiles of an inference are: as few forwards as the budget allows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from caudal.core.config import Frozen
from caudal.core.geometry import round_up
from caudal.data.readers.base import Header
from caudal.inference.tiles import Mode, TileGrid
from caudal.memory.cost import Forward
from caudal.memory.levers import LEVERS
from caudal.memory.levers.tile import Tile

if TYPE_CHECKING:
    from torch import nn

# Steps between tiles. Neighbours that are blended overlap by an eighth of a step, whatever the step, so that
# larger tiles save nothing; exact tiles share the model's whole reach and are better large.
BLENDED_PX = (512, 256, 128)
EXACT_PX = (1024, 768, 512, 256, 128)
_OVERLAP = 8
FORWARD_SIDES_PX = (96, 192, 320, 576)
"""Of the squares whose inference is measured: the last three hold a whole blended tile of most models."""


class Tiling(Frozen):
    """`core_px` new pixels a tile, `context_px` around them on each side, and how tiles are joined."""

    core_px: int
    context_px: int
    multiple_px: int
    mode: Mode = "blend"

    @property
    def side_px(self) -> int:
        """The side of a whole tile."""
        return self.core_px + 2 * round_up(self.context_px, self.multiple_px)

    def grid(self, header: Header) -> TileGrid:
        """The tiles of one raster."""
        return self._cut(header.height, header.width)

    def tiles(self, height: int, width: int) -> int:
        """How many tiles a raster of that size has."""
        return len(self._cut(height, width))

    def _cut(self, height: int, width: int) -> TileGrid:
        return TileGrid(height, width, self.core_px, self.context_px, self.multiple_px, self.mode)


def candidates(reach_px: int, multiple_px: int, exact: bool) -> list[Tiling]:
    """Every tiling, best first; `reach_px` is how far the model sees.

    Exact tiles give what the whole image would give, up to rounding. Blended ones see less of their
    surroundings at the rim, where their neighbour counts for more, and cost less.
    """
    tile: Tile = LEVERS.get("tile")(EXACT_PX if exact else BLENDED_PX, multiple_px, exact)
    return [
        Tiling(
            core_px=core,
            context_px=reach_px if exact else max(multiple_px // 2, core // (2 * _OVERLAP)),
            multiple_px=multiple_px,
            mode="exact" if exact else "blend",
        )
        for core in tile.positions()
    ]


def blended_step(side_px: int) -> int:
    """The step of the largest blended tiles of which a square of `side_px` holds one; cells to 32 px."""
    return next((core for core in BLENDED_PX if core + core // _OVERLAP <= side_px), BLENDED_PX[-1])


def validation_tiling(model: nn.Module, forwards: Sequence[Forward]) -> Tiling:
    """The tiling of scoring while and after training: the largest whose tiles a probe measured."""
    # torch types every attribute of a module as a tensor or a module.
    context, multiple = int(model.receptive_field_px), int(model.multiple_px)  # type: ignore[arg-type]
    all_of_them = candidates(context, multiple, exact=False)
    most = max((one.side_px for one in forwards), default=0)
    fitting = [tiling for tiling in all_of_them if tiling.side_px <= most]
    return fitting[0] if fitting else all_of_them[-1]

"""How large the tiles of an inference are: as few forwards as the budget allows."""

from __future__ import annotations

from caudal.core.config import Frozen
from caudal.core.geometry import round_up
from caudal.core.units import MIB, Bytes
from caudal.data.readers.base import Header
from caudal.inference.predict import working_bytes
from caudal.inference.tiles import Mode, TileGrid
from caudal.memory import cost
from caudal.memory.cost import Forward

CORES_PX = (1024, 768, 512, 384, 256, 128)
# Larger tiles save a few forwards and cost a lot; no raster needs more than this to be fast.
ENOUGH_BYTES = Bytes(320 * MIB)


class Tiling(Frozen):
    """`core_px` new pixels a tile, `context_px` around them on each side, and how tiles are joined."""

    core_px: int
    context_px: int
    multiple_px: int
    mode: Mode = "exact"

    @property
    def side_px(self) -> int:
        """The side of a whole tile."""
        return self.core_px + 2 * round_up(self.context_px, self.multiple_px)

    def grid(self, header: Header) -> TileGrid:
        """The tiles of one raster."""
        return TileGrid(
            header.height, header.width, self.core_px, self.context_px, self.multiple_px, self.mode
        )


def tiling_bytes(
    tiling: Tiling, forwards: tuple[Forward, ...], header: Header, channels: int
) -> tuple[Bytes, Bytes]:
    """What predicting `header` takes beside the model: (ram, vram)."""
    height, width = tiling.grid(header).largest
    ram, vram = cost.forward_bytes(forwards, height * width)
    own = working_bytes(tiling.grid(header), header.bands, header.dtype.itemsize, channels, 1)
    return Bytes(ram + own), vram


def candidates(context_px: int, multiple_px: int) -> list[Tiling]:
    """Every tiling, largest first. A context that would dwarf a tile is blended over instead."""
    found = []
    for core in CORES_PX:
        if core < multiple_px or core % multiple_px:
            continue
        exact = 2 * context_px <= core
        context = context_px if exact else core // 8
        found.append(
            Tiling(
                core_px=core, context_px=context, multiple_px=multiple_px, mode="exact" if exact else "blend"
            )
        )
    return found

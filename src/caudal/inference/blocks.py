"""The packed blocks of an output, all levels, in an unnamed file until their places in the output are known.

Knows how the pixels of a block become a TIFF's bytes (predictor, codec). Knows no directory of a TIFF, which
is the matter of `cog`, and not what the levels mean.

Shapes: H rows, W columns, B bands, the order in which a TIFF's pixels lie.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import imagecodecs
import numpy as np
import numpy.typing as npt

from caudal.core.geometry import Window
from caudal.inference.spill import Spill

Array = npt.NDArray[Any]
Codec = Literal["deflate", "zstd"]
# Deflate is the default because browsers read it. Level 1 because 3 takes half as long again for class maps
# and nearly three times as long for scores, for 5 to 9 % fewer bytes.
_LEVEL: Mapping[str, int] = {"deflate": 1, "zstd": 3}
FRAME_BYTES = 4  # before and after each block, as GDAL's readers like it: see `cog`


@dataclass(frozen=True, slots=True)
class Packing:
    """How a block becomes bytes: `predictor` has TIFF's numbers, 1 none, 2 differences, 3 of floats."""

    codec: Codec
    predictor: int

    def pack(self, x_HWB: Array) -> bytes:
        """The bytes of a block."""
        if self.predictor == 2:
            x_HWB = imagecodecs.delta_encode(x_HWB, axis=-2)
        elif self.predictor == 3:
            x_HWB = imagecodecs.floatpred_encode(x_HWB, axis=-2)
        encode: Any = imagecodecs.deflate_encode if self.codec == "deflate" else imagecodecs.zstd_encode
        return bytes(encode(x_HWB, level=_LEVEL[self.codec]))


class Blocks:
    """Blocks of `block_px`² by level, row and column; `sizes` are the levels' heights and widths in px.

    `put` may be called from several threads, for each block once.

    Raises:
        OSError: from any call; `ENOSPC` without room in `folder`.
    """

    def __init__(
        self,
        folder: Path,
        sizes: Sequence[tuple[int, int]],
        block_px: int,
        bands: int,
        dtype: np.dtype[Any],
        nodata: float,
        packing: Packing,
    ) -> None:
        self.sizes, self.block_px, self.bands, self.dtype = tuple(sizes), block_px, bands, dtype
        self.nodata = dtype.type(nodata)
        self._packing = packing
        self._lock = threading.Lock()
        self._end = 0
        self._packed: dict[bytes, bytes] = {}
        self._places = [np.zeros((*self.counts(level), 2), np.int64) for level in range(len(sizes))]
        self._spill = Spill(folder)

    def counts(self, level: int) -> tuple[int, int]:
        """How many rows and columns of blocks a level has."""
        height, width = self.sizes[level]
        return -(-height // self.block_px), -(-width // self.block_px)

    def area(self, level: int, row: int, col: int) -> Window:
        """The pixels of a block that lie inside its level."""
        block = self.block_px
        return Window(row * block, col * block, block, block).clip(*self.sizes[level])

    def packed_bytes(self, level: int) -> npt.NDArray[np.int64]:
        """Sizes of the packed blocks without frames, by row and column; 0 where none was put."""
        return self._places[level][:, :, 1]

    def put(self, level: int, row: int, col: int, x_HWB: Array) -> None:
        """Pack and keep a block; `x_HWB` has the pixels of its `area`."""
        if x_HWB.shape[:2] != (self.block_px, self.block_px):
            padded = np.full((self.block_px, self.block_px, self.bands), self.nodata)
            padded[: x_HWB.shape[0], : x_HWB.shape[1]] = x_HWB
            x_HWB = padded
        data = self._uniform(x_HWB) or self._packing.pack(x_HWB)
        framed = struct.pack("<I", len(data)) + data + data[-FRAME_BYTES:]
        with self._lock:
            place, self._end = self._end, self._end + len(framed)
        self._spill.write(place, framed)
        self._places[level][row, col] = place, len(data)

    def _uniform(self, x_HWB: Array) -> bytes | None:
        """The bytes of a block of one value, packed once: large parts of a map may be nodata or one class."""
        if self.bands > 1 or (x_HWB != x_HWB[0, 0]).any():
            return None
        value = x_HWB[0, 0].tobytes()
        if value not in self._packed:
            self._packed[value] = self._packing.pack(x_HWB)
        return self._packed[value]

    def framed(self, level: int, row: int, col: int) -> bytearray:
        """A packed block between its frames: its size before, its last bytes after."""
        place, size = self._places[level][row, col].tolist()
        assert size, "this block was never put"
        return self._spill.read(place, size + 2 * FRAME_BYTES)

    def close(self) -> None:
        """Give the disk space back."""
        self._spill.close()

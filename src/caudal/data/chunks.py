"""How images are cut into chunks: the pieces that are decoded once and then feed many patches.

A chunk is made of whole blocks, so that no block is decoded twice in an epoch but those on a chunk's
edge where an image is smaller than the grid. The grid moves from epoch to epoch, so that no pixel lies
on a border for ever. Patches of a chunk lie inside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from caudal.core.geometry import Window, round_up
from caudal.core.seeds import generator
from caudal.data.index import Index

Ints = npt.NDArray[np.int64]

CHUNK_BYTES = 8 * 2**20


@dataclass(frozen=True)
class Chunks:
    """The chunks of one epoch, in the files' order: arrays with one entry a chunk.

    `image` is the image's number; `row`, `col`, `height`, `width` its window in pixels; `patches` how
    many patches are drawn from it.
    """

    image: Ints
    row: Ints
    col: Ints
    height: Ints
    width: Ints
    patches: Ints

    def __len__(self) -> int:
        return len(self.image)

    def window(self, c: int) -> Window:
        """The window of chunk `c`."""
        return Window(int(self.row[c]), int(self.col[c]), int(self.height[c]), int(self.width[c]))


@dataclass(frozen=True)
class Cutter:
    """Cuts the images `members` of an index into chunks for patches of `patch_px`.

    `density` scales how many patches are drawn: at 1 an epoch draws as many pixels as there are.
    """

    index: Index
    members: tuple[int, ...]
    patch_px: int
    seed: int
    density: float = 1.0

    def patches_of(self, i: int) -> int:
        """Patches drawn from image i in each epoch."""
        area = int(self.index.height[i] * self.index.width[i])
        return max(1, round(self.density * area / self.patch_px**2))

    @property
    def samples(self) -> int:
        """Patches of an epoch, the same for every epoch."""
        return sum(self.patches_of(i) for i in self.members)

    def chunk_shape(self, i: int) -> tuple[int, int]:
        """Height and width of the chunks of image i in pixels: whole blocks, at least two patches a side."""
        height, width = int(self.index.height[i]), int(self.index.width[i])
        block_h, block_w = (int(v) for v in self.index.block[i])
        layout = self.index.layouts[int(self.index.layout[i])]
        pixel_bytes = layout.dtype.itemsize * len(layout.order)
        if height * width * pixel_bytes <= CHUNK_BYTES:
            return height, width
        side = int((CHUNK_BYTES / pixel_bytes) ** 0.5)
        chunk_w = width if block_w >= width else min(width, self._whole_blocks(side, block_w))
        rows = CHUNK_BYTES // (pixel_bytes * chunk_w)
        return min(height, self._whole_blocks(rows, block_h)), chunk_w

    def _whole_blocks(self, size: int, block: int) -> int:
        """The most whole blocks in `size`, but enough for two patches."""
        return max(size // block * block, round_up(2 * self.patch_px, block))

    @property
    def largest_bytes(self) -> int:
        """Decoded bytes of the largest chunk, image and mask."""
        most = 0
        for i in self.members:
            height, width = self.chunk_shape(i)
            layout = self.index.layouts[int(self.index.layout[i])]
            most = max(most, height * width * (layout.dtype.itemsize * len(layout.order) + 1))
        return most

    @property
    def most_patches(self) -> list[int]:
        """Upper bounds of the patches of each chunk, largest first, whatever the epoch."""
        bounds = []
        for i in self.members:
            height, width = int(self.index.height[i]), int(self.index.width[i])
            chunk_h, chunk_w = self.chunk_shape(i)
            count = (-(-height // chunk_h) + (chunk_h < height)) * (-(-width // chunk_w) + (chunk_w < width))
            share = min(1.0, chunk_h * chunk_w / (height * width))
            bounds += [int(self.patches_of(i) * share) + 1] * count
        return sorted(bounds, reverse=True)

    def cut(self, epoch: int) -> Chunks:
        """The chunks of an epoch; a pure function of (seed, epoch)."""
        rows = [chunk for i in self.members for chunk in self._cut_image(i, epoch)]
        columns = np.array(rows, np.int64).reshape(-1, 6).T
        return Chunks(*(np.ascontiguousarray(column) for column in columns))

    def _cut_image(self, i: int, epoch: int) -> list[tuple[int, ...]]:
        height, width = int(self.index.height[i]), int(self.index.width[i])
        chunk_h, chunk_w = self.chunk_shape(i)
        draw = generator(self.seed, "chunk grid", epoch, i)
        block_h, block_w = (int(v) for v in self.index.block[i])
        row_edges = _edges(height, chunk_h, block_h, draw)
        col_edges = _edges(width, chunk_w, block_w, draw)
        total, area, seen, given = self.patches_of(i), height * width, 0, 0
        chunks: list[tuple[int, ...]] = []
        for top, bottom in pairwise(row_edges):
            for left, right in pairwise(col_edges):
                seen += (bottom - top) * (right - left)
                # Rounding the running sum keeps the image's total exact.
                count = seen * total // area - given
                given += count
                if count:
                    row, high = _grow(top, bottom, min(self.patch_px, height))
                    col, wide = _grow(left, right, min(self.patch_px, width))
                    chunks.append((i, row, col, high, wide, count))
        return chunks


def _edges(size: int, chunk: int, block: int, draw: np.random.Generator) -> list[int]:
    """Borders of the chunks along one side, the first moved by a random number of whole blocks."""
    if chunk >= size:
        return [0, size]
    first = int(draw.integers(1, chunk // block + 1)) * block
    return [0, *range(first, size, chunk), size]


def _grow(start: int, end: int, least: int) -> tuple[int, int]:
    """A side of at least `least` pixels that ends at `end` (or begins at 0)."""
    start = max(0, min(start, end - least))
    return start, max(end, start + least) - start

"""Which pieces of a data set a probe reads: those that take most."""

from __future__ import annotations

import numpy as np

from caudal.core.config import Frozen
from caudal.data.chunks import Cutter
from caudal.data.index import Index
from caudal.data.split import Split


class Pieces(Frozen):
    """What to rehearse: the largest chunk of the training part, and the largest image that is scored.

    `chunk` is (row, col, height, width) in pixels of `image`.
    """

    image: str
    mask: str | None
    chunk: tuple[int, int, int, int]
    scored: str
    scored_mask: str | None


def choose_pieces(index: Index, parts: Split, cutter: Cutter) -> Pieces:
    """The chunk and the image that take most to decode and to score."""
    pixel_bytes = np.array([layout.dtype.itemsize * len(layout.order) for layout in index.layouts])
    chunk = max(parts.train, key=lambda i: int(np.prod(cutter.chunk_shape(i)) * pixel_bytes[index.layout[i]]))
    scored = max(
        parts.held_out, key=lambda i: int(index.height[i] * index.width[i] * pixel_bytes[index.layout[i]])
    )
    masks = [index.masks[i] or None for i in (chunk, scored)]
    return Pieces(
        image=index.images[chunk],
        mask=masks[0],
        chunk=(0, 0, *cutter.chunk_shape(chunk)),
        scored=index.images[scored],
        scored_mask=masks[1],
    )

"""An invisible mark in a picture that says that it was generated: found again without the original.

It needs 256 pixels a side. Spread spectrum: in each block of 8×8 pixels of the brightness, four middle
frequencies are moved by about one and a half levels in directions that a fixed key gives, one bit a block,
each bit in many blocks. Finding it correlates the same frequencies with the key. It survives JPEG at usual
qualities and slight changes of brightness; it does not survive resizing, cropping off the grid, nor anyone
who wants it gone.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from caudal.tasks.generation.faces import Picture

_BLOCK = 8
_FREQUENCIES = ((1, 2), (2, 1), (2, 2), (0, 3))
_STRENGTH = (
    6.0  # in units of the transform: three levels of 256 at most in a pixel, one and a half on average
)
_MESSAGE = np.unpackbits(np.frombuffer(b"caudal", np.uint8))
_SEED = 0xCA0DA1
_CERTAIN = 6.0  # standard deviations: one false alarm in a billion pictures
LEAST_PX = 256

Reals = npt.NDArray[np.float32]


def mark(x_HWC: Picture) -> Picture:
    """The picture with the mark in it; one smaller than 256 pixels has too little room and is given back."""
    if min(x_HWC.shape[:2]) < LEAST_PX:
        return x_HWC
    import cv2

    rows, columns = x_HWC.shape[0] // _BLOCK, x_HWC.shape[1] // _BLOCK
    change_HW = _inverse(_pattern(rows, columns) * _STRENGTH)
    marked = x_HWC.copy()
    area = marked[: rows * _BLOCK, : columns * _BLOCK]
    area[:] = cv2.add(area.astype(np.float32), np.repeat(change_HW[:, :, None], 3, 2)).round().clip(0, 255)
    return marked


def certainty(x_HWC: Picture) -> float:
    """How many standard deviations the mark stands above chance; see `is_marked`."""
    rows, columns = x_HWC.shape[0] // _BLOCK, x_HWC.shape[1] // _BLOCK
    if rows * columns < (LEAST_PX // _BLOCK) ** 2:
        return 0.0
    grey_HW = x_HWC[: rows * _BLOCK, : columns * _BLOCK].astype(np.float32).mean(-1)
    pattern = _pattern(rows, columns)
    chosen = pattern != 0
    found = _forward(grey_HW)[chosen]
    # What a picture has of its own at a frequency may be large: it is cut, so that no block speaks for many.
    found = np.clip(found, -2 * _STRENGTH, 2 * _STRENGTH)
    agreement = found * pattern[chosen]
    spread = float(agreement.std()) or 1.0
    return float(agreement.mean() / spread * np.sqrt(agreement.size))


def is_marked(x_HWC: Picture) -> bool:
    """Whether a picture carries the mark."""
    return certainty(x_HWC) > _CERTAIN


@lru_cache(maxsize=4)
def _pattern(rows: int, columns: int) -> Reals:
    """+1, -1 or 0 for each frequency of each block, (rows, columns, 8, 8)."""
    signs = np.random.default_rng(_SEED).choice((-1, 1), (rows * columns, len(_FREQUENCIES)))
    bits = np.resize(_MESSAGE.astype(np.int64) * 2 - 1, rows * columns)[:, None]
    pattern = np.zeros((rows * columns, _BLOCK, _BLOCK), np.float32)
    for index, (down, across) in enumerate(_FREQUENCIES):
        pattern[:, down, across] = (signs * bits)[:, index]
    return np.asarray(pattern.reshape(rows, columns, _BLOCK, _BLOCK), np.float32)


@lru_cache(maxsize=1)
def _basis() -> Reals:
    k, n = np.mgrid[:_BLOCK, :_BLOCK]
    basis = np.cos(np.pi * (2 * n + 1) * k / (2 * _BLOCK)) * np.sqrt(2 / _BLOCK)
    basis[0] /= np.sqrt(2)
    return np.asarray(basis, np.float32)


def _forward(x_HW: Reals) -> Reals:
    """Cosine transform of each block: (rows, columns, 8, 8)."""
    blocks = x_HW.reshape(x_HW.shape[0] // _BLOCK, _BLOCK, -1, _BLOCK).transpose(0, 2, 1, 3)
    return np.asarray(_basis() @ blocks @ _basis().T, np.float32)


def _inverse(blocks: Reals) -> Reals:
    pixels = _basis().T @ blocks @ _basis()
    rows, columns = blocks.shape[:2]
    return np.asarray(pixels.transpose(0, 2, 1, 3).reshape(rows * _BLOCK, columns * _BLOCK), np.float32)

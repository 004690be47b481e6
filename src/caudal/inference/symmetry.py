"""Averages a model over the eight symmetries of the square (D4), where up and left mean nothing.

Shapes: N tiles, H rows, W columns, C channels. Works on any callable that maps tiles to scores; knows no
model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from caudal.inference.blend import Scores

Array = npt.NDArray[Any]
Valid = npt.NDArray[np.bool_]
# (x_NHWC in the file's dtype, valid_NHW or None) → scores_NCHW float32 of the same H and W.
Forward = Callable[[Array, Valid | None], Scores]


def averaged(forward: Forward) -> Forward:
    """`forward` on each of the 8 flips and quarter turns of a tile; the mean of the scores, turned back.

    Holds one more set of scores and one turned copy of the tile. H and W need not be equal.
    """

    def mean(x_NHWC: Array, valid_NHW: Valid | None) -> Scores:
        total: Scores | None = None
        for turns in range(4):
            for flip in (False, True):
                turned = _turn(x_NHWC, turns, flip, (1, 2))
                valid = None if valid_NHW is None else _turn(valid_NHW, turns, flip, (1, 2))
                scores = _turn_back(forward(turned, valid), turns, flip)
                if total is None:
                    total = np.array(scores)
                else:
                    total += scores
        assert total is not None
        total *= 1 / 8
        return total

    return mean


def _turn(x: Array, turns: int, flip: bool, axes: tuple[int, int]) -> Array:
    x = np.flip(x, axes[1]) if flip else x
    return np.ascontiguousarray(np.rot90(x, turns, axes))


def _turn_back(scores_NCHW: Scores, turns: int, flip: bool) -> Scores:
    back = np.rot90(scores_NCHW, -turns, (2, 3))
    return np.flip(back, 3) if flip else back

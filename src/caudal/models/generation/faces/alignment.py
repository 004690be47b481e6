"""A face turned, scaled and cut so that its five points lie where recognizers were trained to see them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from caudal.tasks.generation.faces import Picture

CROP_PX = 112
_TEMPLATE_52 = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
"""The five points in a crop of 112 pixels, as ArcFace and its kin use them."""


def similarity(from_52: npt.NDArray[np.float32], to_52: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The 2×3 matrix of the rotation, scale and shift that take five points nearest to five others."""
    x, y = from_52[:, 0], from_52[:, 1]
    one, nil = np.ones(len(x)), np.zeros(len(x))
    equations = np.concatenate([np.stack([x, -y, one, nil], 1), np.stack([y, x, nil, one], 1)])
    a, b, dx, dy = np.linalg.lstsq(equations, np.concatenate([to_52[:, 0], to_52[:, 1]]), rcond=None)[0]
    return np.array([[a, -b, dx], [b, a, dy]])


def aligned(x_HWC: Picture, points_52: npt.NDArray[np.float32], side: int = CROP_PX) -> Picture:
    """The crop (side, side, 3) in which the points lie on the template."""
    import cv2

    matrix = similarity(points_52, _TEMPLATE_52 * (side / CROP_PX))
    return np.asarray(cv2.warpAffine(x_HWC, matrix, (side, side)), np.uint8)

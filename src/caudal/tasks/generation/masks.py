"""Where in the picture each of several persons may show: a mask a face, around its box."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from caudal.tasks.generation.faces import Face

_AROUND = 1.0  # of the box's size, on every side: hair, neck and shoulders belong to a person


def face_masks(
    faces: Sequence[Face], height: int, width: int, around: float = _AROUND
) -> npt.NDArray[np.float32]:
    """Masks (faces, height, width) of 0 and 1: the box of each face, grown by `around` times its size.

    Where two overlap, a pixel belongs to the face whose centre is nearer: identities must not mix.
    """
    y_H1, x_1W = np.mgrid[0:height, 0:1][0], np.mgrid[0:1, 0:width][1]
    inside, distance = [], []
    for face in faces:
        left, top, right, bottom = face.box
        grow_x, grow_y = around * (right - left), around * (bottom - top)
        inside.append(
            (x_1W >= left - grow_x)
            & (x_1W < right + grow_x)
            & (y_H1 >= top - grow_y)
            & (y_H1 < bottom + grow_y)
        )
        distance.append((x_1W - (left + right) / 2) ** 2 + (y_H1 - (top + bottom) / 2) ** 2)
    nearest = np.argmin(np.where(np.stack(inside), np.stack(distance), np.inf), axis=0)
    return np.stack([mask & (nearest == i) for i, mask in enumerate(inside)]).astype(np.float32)

"""A face engine without models, for tests and for trying the program: it finds drawn faces and no real ones.

A face is a patch of one skin-like colour; its points lie at fixed places in its box, and it is described by a
fixed random projection of its pixels. It says nothing about any person.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from caudal.core.messages import _
from caudal.models.generation.faces.alignment import aligned
from caudal.tasks.generation.faces import Face, Picture

SKIN = (224, 172, 140)
_TOLERANCE = 30
_LEAST_PX = 6
_POINTS_52 = np.array([[0.3, 0.38], [0.7, 0.38], [0.5, 0.58], [0.35, 0.78], [0.65, 0.78]], np.float32)
_SIDE_PX = 16


class StandIn:
    """Finds patches of the colour `SKIN`, 6 pixels wide or more, and describes them in 512 numbers."""

    name = "stand_in"
    embedding = 512
    least_px = 0

    def __init__(self, folder: Path | None = None, threads: int = 1) -> None:
        """There is nothing to open."""
        self.licence = _("a stand-in for tests: it finds no real faces")

    def detect(self, x_HWC: Picture) -> list[Face]:
        """See `FaceEngine.detect`."""
        import cv2

        near = (np.abs(x_HWC.astype(np.int16) - SKIN).max(-1) <= _TOLERANCE).astype(np.uint8)
        count, _labels, boxes, _centres = cv2.connectedComponentsWithStats(near, connectivity=8)
        found = []
        for left, top, width, height, area in boxes[1:count].tolist():
            if min(width, height) < _LEAST_PX or area < 0.3 * width * height:
                continue
            corner, size = np.array([left, top]), np.array([width, height])
            found.append(
                Face(
                    (left, top, left + width, top + height),
                    (corner + _POINTS_52 * size).astype(np.float32),
                    min(1.0, area / (width * height)),
                )
            )
        return found

    def embed(self, x_HWC: Picture, face: Face) -> npt.NDArray[np.float32]:
        """See `FaceEngine.embed`."""
        crop = aligned(x_HWC, face.points_52, _SIDE_PX).astype(np.float32).reshape(-1) / 127.5 - 1
        return (crop @ _projection()).astype(np.float32)


@lru_cache(maxsize=1)
def _projection() -> npt.NDArray[np.float32]:
    generator = np.random.default_rng(512)
    return np.asarray(generator.standard_normal((_SIDE_PX * _SIDE_PX * 3, 512)) / _SIDE_PX, np.float32)

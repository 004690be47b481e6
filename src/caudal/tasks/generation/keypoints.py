"""The picture of keypoints that a face ControlNet is shown: five points, four bars to the nose, on black.

Strokes are as wide as the published method draws them on a picture whose shorter side is 1024 pixels, and in
proportion on others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from caudal.tasks.generation.faces import Face, Picture

_COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255))
_NOSE = 2
_BAR_PX, _DOT_PX, _REFERENCE_PX = 4, 10, 1024
_DIMMED = 0.6


def keypoint_picture(faces: Sequence[Face], height: int, width: int, stroke: float | None = None) -> Picture:
    """Draw the keypoints of `faces` on black: (height, width, 3), uint8, RGB.

    `stroke` multiplies the published widths; by default it follows the size.
    """
    import cv2

    scale = min(height, width) / _REFERENCE_PX if stroke is None else stroke
    bar_px, dot_px = max(1, round(_BAR_PX * scale)), max(1, round(_DOT_PX * scale))
    x_HWC = np.zeros((height, width, 3), np.uint8)
    for face in faces:
        nose = face.points_52[_NOSE]
        for point, colour in zip(face.points_52, _COLOURS, strict=True):
            middle = (point + nose) / 2
            length = float(np.linalg.norm(point - nose))
            angle = math.degrees(math.atan2(point[1] - nose[1], point[0] - nose[0]))
            if length == 0:  # the nose itself
                continue
            outline = cv2.ellipse2Poly(
                (int(middle[0]), int(middle[1])), (int(length / 2), bar_px), int(angle), 0, 360, 1
            )
            cv2.fillConvexPoly(x_HWC, np.asarray(outline, np.int32), colour)
    x_HWC = (x_HWC * _DIMMED).astype(np.uint8)
    for face in faces:
        for point, colour in zip(face.points_52, _COLOURS, strict=True):
            cv2.circle(x_HWC, (int(point[0]), int(point[1])), dot_px, colour, -1)
    return x_HWC

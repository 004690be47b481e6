"""What a face is, the contract of an engine that finds it, and how much of a picture it looks at.

Legend: x_HWC uint8 RGB; `box` left, top, right, bottom; `points_52` five points (x, y): left eye, right eye,
nose, left and right corner of the mouth, as they lie in the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from caudal.core.errors import BadValues
from caudal.core.messages import _

Picture = npt.NDArray[np.uint8]
DETECTION_PX = (128, 320, 640, 1024)
"""Longer sides at which faces are sought, smallest first: a face that fills the picture is lost at a large
one, and a small face at a small one."""
DETECTION_BYTES_A_PX = 256
"""What looking at a square takes, a pixel: two of SCRFD-10G's widest layers and a kernel's copy of one."""


@dataclass(frozen=True)
class Face:
    """A face in a picture, in that picture's pixels."""

    box: tuple[float, float, float, float]
    points_52: npt.NDArray[np.float32]
    score: float

    @property
    def area(self) -> float:
        """Pixels of its box."""
        left, top, right, bottom = self.box
        return max(0.0, right - left) * max(0.0, bottom - top)

    def scaled(self, factor: float, shift: tuple[float, float] = (0.0, 0.0)) -> Face:
        """The face in a picture of another size."""
        (left, top, right, bottom), (dx, dy) = self.box, shift
        return Face(
            (left * factor + dx, top * factor + dy, right * factor + dx, bottom * factor + dy),
            (self.points_52 * factor + np.array(shift)).astype(np.float32),
            self.score,
        )


class FaceEngine(Protocol):
    """Finds faces and describes them.

    `licence` says what its models may be used for; `embedding` is the count of numbers of a description.
    `least_px` is the side at which it looks at any smaller picture; 0 where it looks as small as it is.
    """

    name: str
    licence: str
    embedding: int
    least_px: int

    def detect(self, x_HWC: Picture) -> list[Face]:
        """The faces of a picture, at the size that it has."""
        ...

    def embed(self, x_HWC: Picture, face: Face) -> npt.NDArray[np.float32]:
        """`embedding` numbers that describe a face, not normalized: their length says how sure it is."""
        ...


def detection_bytes(side_px: int) -> int:
    """What looking for faces in a picture takes whose longer side is so long."""
    return DETECTION_BYTES_A_PX * side_px * side_px


def affordable_px(left: int) -> int:
    """The longest side at which `left` bytes allow to look; the smallest is always looked at."""
    return max([DETECTION_PX[0], *(side for side in DETECTION_PX if detection_bytes(side) <= left)])


def find_faces(
    engine: FaceEngine,
    x_HWC: Picture,
    most_px: int = DETECTION_PX[-1],
    sizes_px: Sequence[int] = DETECTION_PX,
    wanted: int = 1,
) -> list[Face]:
    """The faces of a picture, largest first; sought at small sizes first, then at larger ones.

    The next size is tried only if fewer than `wanted` are found; where none has so many, the one that has
    most counts. `most_px` is the longer side that memory allows.
    """
    import cv2

    longer = max(x_HWC.shape[:2])
    tried = sorted({min(size, longer) for size in sizes_px if size <= most_px} or {min(longer, most_px)})
    most: list[Face] = []
    for size in tried:
        factor = size / longer
        shape = (max(1, round(x_HWC.shape[1] * factor)), max(1, round(x_HWC.shape[0] * factor)))
        small = x_HWC if factor == 1 else cv2.resize(x_HWC, shape, interpolation=cv2.INTER_AREA)
        found = engine.detect(np.ascontiguousarray(small, np.uint8))
        if len(found) > len(most):
            most = sorted((face.scaled(1 / factor) for face in found), key=lambda f: -f.area)
        if len(most) >= wanted:
            break
    return most


def the_face(faces: Sequence[Face], name: str, most_px: int = DETECTION_PX[-1]) -> tuple[Face, str]:
    """The largest face of a picture called `name`, and a warning if there are others (else empty).

    `most_px` is the longest side at which memory allowed to look.

    Raises:
        BadValues: there is none.
    """
    if not faces and most_px < DETECTION_PX[-1]:
        raise BadValues(
            _(
                "No face was found in {name} at {px} pixels, and the budget has no room for a closer look."
            ).format(name=name, px=most_px),
            _("Give more --ram, or a picture that the face fills."),
        )
    if not faces:
        raise BadValues(
            _("No face was found in {name}.").format(name=name),
            _("Give a picture in which a face is seen from the front, at least 100 pixels wide."),
        )
    if len(faces) == 1:
        return faces[0], ""
    return faces[0], _("{name} shows {count} faces; the largest is used.").format(name=name, count=len(faces))

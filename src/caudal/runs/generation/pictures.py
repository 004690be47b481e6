"""Pictures that a user gives: read upright and no larger than needed, and fitted to the size that is made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from caudal.core.errors import DoesNotFit
from caudal.core.messages import _
from caudal.core.units import Bytes
from caudal.data.locations import located, open_bytes
from caudal.data.sample_files.pictures import PictureReader
from caudal.tasks.generation.faces import Face, Picture

MOST_PX = 2048
"""The longer side of what is kept of a picture: a face of it is then larger than any engine looks at."""


@dataclass(frozen=True)
class Given:
    """A picture and what was left out of it, in words."""

    name: str
    x_HWC: Picture
    warnings: tuple[str, ...] = ()


def read_picture(path: str | Path, most_bytes: int, most_px: int = MOST_PX) -> Given:
    """A JPEG or PNG as RGB, upright, its longer side `most_px` at most.

    Decoding may take `most_bytes`; it is known from the header what it will take.

    Raises:
        DoesNotFit: decoding would take more.
        UnreadableFile: no picture, or a broken one.
        UsageError: an address that is not understood.
    """
    file = open_bytes(located(str(path)))
    try:
        whole = PictureReader().part(file, whole=True)
        height, width = (int(side or 0) for side in whole.fields[0].shape[:2])
        factor = min(1.0, most_px / max(height, width))
        size = (max(1, round(height * factor)), max(1, round(width * factor)))
        reader = PictureReader(resize_px=size, scaled=True) if factor < 1 else PictureReader()
        part = reader.part(file, whole=True)
        needed = part.scratch_bytes + 3 * size[0] * size[1]
        if needed > most_bytes:
            raise DoesNotFit(
                _("{path} has {pixels} pixels; decoding needs {needed} of ram, and {left} are left.").format(
                    path=path,
                    pixels=f"{height}×{width}",
                    needed=Bytes(needed),
                    left=Bytes(max(0, most_bytes)),
                ),
                _("Make it smaller (2048 pixels are enough), or save it as a JPEG, which decodes smaller."),
                pool="ram", needed=needed, budget=most_bytes,
            )  # fmt: skip
        x_1HWC = np.empty((1, *size, 3), np.uint8)
        reader.read(file, part, 0, {"image": x_1HWC})
    finally:
        file.close()
    return Given(Path(str(path)).name, x_1HWC[0], tuple(f"{path}: {text}" for text in part.left_out))


def natural_size(x_HWC: Picture, shorter_px: int = 1024, longer_px: int = 1280) -> tuple[int, int]:
    """Width and height for a picture like this one: sides near the published ones, multiples of 64."""
    height, width = x_HWC.shape[:2]
    factor = min(shorter_px / min(height, width), longer_px / max(height, width))
    return tuple(max(64, int(side * factor) // 64 * 64) for side in (width, height))  # type: ignore[return-value]


def fitted(x_HWC: Picture, width: int, height: int) -> tuple[Picture, float, tuple[float, float]]:
    """The picture inside a black one of this size, whole and centred; the factor and shift that did it."""
    import cv2

    factor = min(width / x_HWC.shape[1], height / x_HWC.shape[0])
    inner = (max(1, round(x_HWC.shape[1] * factor)), max(1, round(x_HWC.shape[0] * factor)))
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    canvas = np.zeros((height, width, 3), np.uint8)
    way = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    canvas[top : top + inner[1], left : left + inner[0]] = cv2.resize(x_HWC, inner, interpolation=way)
    return canvas, factor, (left, top)


def placed(face: Face, factor: float, shift: tuple[float, float]) -> Face:
    """A face where `fitted` has put it."""
    return face.scaled(factor, shift)


def edges(x_HWC: Picture, low: int = 100, high: int = 200) -> Picture:
    """The edges of a picture, white on black, for a ControlNet of the canny kind."""
    import cv2

    found = cv2.Canny(x_HWC, low, high)
    return np.repeat(np.asarray(found, np.uint8)[:, :, None], 3, axis=2)

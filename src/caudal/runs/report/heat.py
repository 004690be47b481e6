"""Maps of what mattered as pictures: heat over a photograph, and the outline of a mask.

Only what speaks for the class is painted, scaled to the map's own highest values: colours of two maps cannot
be compared, their places can. Shapes: H rows, W columns. Knows no model and no method.
"""

from __future__ import annotations

import io
from functools import cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from caudal.runs.report.paint import Picture

Levels = npt.NDArray[np.uint8]
Values = npt.NDArray[np.float32]
Outline = list[tuple[float, float]]

_LEVELS = 48  # no eye tells more apart over a photograph, and the PNG is a third as large
_HIGHEST = 99.5
"""Percentile that gets the last colour: a single pixel must not make all others dark."""


def levels(map_HW: Values, size_px: tuple[int, int], smooth: float = 0.0) -> Levels:
    """The positive part of a map as 0.._LEVELS - 1 at `size_px` (rows, columns).

    `smooth` is the standard deviation of a blur for the eye, as a share of the shorter side.
    """
    positive_HW: Values = np.maximum(np.nan_to_num(map_HW), 0).astype(np.float32)
    if smooth:
        positive_HW = _float(cv2.GaussianBlur(positive_HW, (0, 0), max(0.5, smooth * min(positive_HW.shape))))
    positive_HW = _float(resized(positive_HW, size_px))
    some = positive_HW[positive_HW > 0]
    high = float(np.percentile(some, _HIGHEST)) if some.size else 1.0
    shares = np.minimum(positive_HW / (high or 1.0), 1)
    found: Levels = (shares * (_LEVELS - 1)).round().astype(np.uint8)
    return found


def resized(x: npt.NDArray[Any], size_px: tuple[int, int]) -> npt.NDArray[Any]:
    """An image at another size: means when it shrinks, bilinear when it grows."""
    if x.shape[:2] == size_px:
        return x
    method = cv2.INTER_AREA if size_px[0] < x.shape[0] else cv2.INTER_LINEAR
    return cv2.resize(x, size_px[::-1], interpolation=method)


def heat_png(levels_HW: Levels) -> bytes:
    """Heat as a PNG that lets the photograph through where there is little."""
    colours, opacity = _ramp()
    image = Image.fromarray(levels_HW).convert("P")
    image.putdata(levels_HW.ravel())
    image.putpalette(colours.ravel().tolist())
    buffer = io.BytesIO()
    image.save(buffer, "png", transparency=opacity.tobytes(), optimize=True)
    return buffer.getvalue()


def heat_over(picture: Picture, levels_HW: Levels) -> Picture:
    """Heat over the grey of a picture (H, W, 3) of the same size, as the page shows it."""
    colours, opacity = _ramp()
    grey_HW1 = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[:, :, None].astype(np.float32)
    share_HW1 = (opacity[levels_HW] / 255)[:, :, None]
    mixed: Picture = (grey_HW1 * (1 - share_HW1) + colours[levels_HW] * share_HW1).round().astype(np.uint8)
    return mixed


def scale_colours() -> list[str]:
    """A few colours from low to high, for a legend."""
    colours, _opacity = _ramp()
    return [f"rgb{tuple(colours[k].tolist())}" for k in np.linspace(4, _LEVELS - 1, 6).astype(int)]


def outlines(mask_HW: npt.NDArray[np.bool_], size_px: tuple[int, int]) -> list[Outline]:
    """The edges of a mask as closed lines of (x, y), in px of a picture of `size_px`."""
    found, _tree = cv2.findContours(mask_HW.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    down, right = size_px[0] / mask_HW.shape[0], size_px[1] / mask_HW.shape[1]
    # Corners go to the middle of their pixel.
    return [[((x + 0.5) * right, (y + 0.5) * down) for x, y in line[:, 0].tolist()] for line in found]


def _float(x: npt.NDArray[Any]) -> Values:
    return x.astype(np.float32, copy=False)


@cache
def _ramp() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Colour and opacity of each level; the colours leave out black, which would hide the photograph."""
    steps = np.linspace(70, 250, _LEVELS).astype(np.uint8)
    colours = cv2.applyColorMap(steps[:, None], cv2.COLORMAP_INFERNO)[:, 0, ::-1].astype(np.uint8)
    shares = np.linspace(0, 1, _LEVELS) ** 0.7 * 0.9
    return np.ascontiguousarray(colours), (shares * 255).round().astype(np.uint8)

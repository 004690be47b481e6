"""Pixels as pictures: a stretched composite, and classes as coloured layers over it.

Shapes: H rows, W columns, C bands. Pictures are uint8; layers hold one colour number for each pixel,
0 for see-through. Knows no model and no file but the PNG that it makes.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from caudal.core.labels import IGNORE
from caudal.data.bands import common_name

Picture = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]

# Told apart by eyes that see no red or no green too.
CLASS_COLOURS: tuple[Colour, ...] = (
    (64, 208, 190), (255, 176, 32), (120, 160, 255), (240, 112, 176),
    (180, 220, 80), (255, 128, 80), (190, 140, 240), (120, 220, 250),
)  # fmt: skip
# What is right steps back, so that mistakes are seen.
RIGHT, MISSED, FALSE_ALARM, UNKNOWN = (44, 104, 106), (255, 176, 32), (255, 84, 164), (128, 136, 144)
SHADE: Colour = (11, 17, 22)
SHADE_SHARE = 0.6
LAYER_SHARE = 0.85
_GAP_PX = 8


@dataclass(frozen=True)
class Layer:
    """Colours for pixels: number n in `numbers_HW` is `colours[n - 1]`, 0 is nothing."""

    numbers_HW: Numbers
    colours: tuple[Colour, ...]


def composite_bands(names: Sequence[str], count: int) -> tuple[int, int, int]:
    """The bands to show as red, green and blue: by their names where these say so, else the first three."""
    known = [common_name(name) for name in names]
    wanted = [common_name(name) for name in ("red", "green", "blue")]
    if all(name in known for name in wanted):
        red, green, blue = (known.index(name) for name in wanted)
        return red, green, blue
    return (0, 1, 2) if count >= 3 else (0, 0, 0)


def stretched(x_HWC: npt.NDArray[Any], valid_HW: npt.NDArray[np.bool_] | None) -> Picture:
    """Values from the 2nd to the 98th percentile of each band spread over 0..255; black where not valid."""
    picture = np.zeros(x_HWC.shape, np.uint8)
    if valid_HW is not None and not valid_HW.any():
        return picture
    for band in range(x_HWC.shape[2]):
        values = x_HWC[:, :, band].astype(np.float32)
        low, high = np.percentile(values if valid_HW is None else values[valid_HW], (2, 98))
        values = (values - low) * (255 / ((high - low) or 1))
        if valid_HW is not None:
            values[~valid_HW] = 0
        picture[:, :, band] = np.clip(values, 0, 255)
    return picture


def class_layer(classes_HW: Numbers, count: int) -> Layer:
    """Every class but the first in its own colour; grey where there is none."""
    numbers = np.where(classes_HW == IGNORE, count, classes_HW).astype(np.uint8)
    colours = tuple(CLASS_COLOURS[k % len(CLASS_COLOURS)] for k in range(count - 1))
    return Layer(numbers, (*colours, UNKNOWN))


def difference_layer(truth_HW: Numbers, predicted_HW: Numbers) -> Layer:
    """Right, missed and false alarms, the first class being the background; another class is a miss."""
    known = (truth_HW != IGNORE) & (predicted_HW != IGNORE)
    numbers = np.zeros(truth_HW.shape, np.uint8)
    numbers[known & (truth_HW > 0) & (predicted_HW == truth_HW)] = 1
    numbers[known & (truth_HW > 0) & (predicted_HW != truth_HW)] = 2
    numbers[known & (truth_HW == 0) & (predicted_HW > 0)] = 3
    return Layer(numbers, (RIGHT, MISSED, FALSE_ALARM))


def photo_png(picture: Picture) -> bytes:
    """A picture as a PNG of 256 colours: a third of the bytes, and no eye sees it at this size."""
    # A few pixels are enough to choose the colours by, and choosing is what takes the time.
    palette = Image.fromarray(np.ascontiguousarray(picture[::4, ::4])).quantize(256)
    return _png(Image.fromarray(picture).quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG), {})


def layer_png(layer: Layer) -> bytes:
    """A layer as a PNG with see-through pixels."""
    image = Image.fromarray(layer.numbers_HW, "L")
    image = image.convert("P") if image.mode != "P" else image
    image.putdata(layer.numbers_HW.ravel())
    image.putpalette([0, 0, 0, *(part for colour in layer.colours for part in colour)])
    opaque = bytes([0] + [round(255 * LAYER_SHARE)] * len(layer.colours))
    return _png(image, {"transparency": opaque})


def strip_png(picture: Picture, layers: Sequence[Layer]) -> bytes:
    """A picture and its layers side by side, as one PNG."""
    dim = picture * (1 - SHADE_SHARE) + np.array(SHADE) * SHADE_SHARE
    panels = [picture]
    for layer in layers:
        colours = np.array([(0, 0, 0), *layer.colours], np.float32)[layer.numbers_HW]
        panels.append(np.where(layer.numbers_HW[:, :, None] > 0, _over(dim, colours), dim).astype(np.uint8))
    gap = np.full((picture.shape[0], _GAP_PX, 3), 255, np.uint8)
    row = [part for panel in panels for part in (panel, gap)][:-1]
    return _png(Image.fromarray(np.hstack(row)), {})


def _over(below: npt.NDArray[Any], colours: npt.NDArray[Any]) -> npt.NDArray[Any]:
    mixed: npt.NDArray[Any] = below * (1 - LAYER_SHARE) + colours * LAYER_SHARE
    return mixed


def _png(image: Image.Image, options: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "png", **options)
    return buffer.getvalue()

"""Resizing pictures, x_HWC uint8, with OpenCV: by what sizes a picture goes, and the pixels.

A picture that shrinks is antialiased unless one asks otherwise: bilinearly to a power of two times the size
that is wanted, by less than half, so that every pixel counts; then by halves, each the mean of its pixels.
That is within a level of 256 of averaging areas, for a third of the time.
"""

from __future__ import annotations

import cv2

from caudal.data.sample_files.base import Array
from caudal.data.sample_files.picture_header import Size

cv2.setNumThreads(0)  # whoever resizes many pictures does so from threads of its own


def resize_steps(from_px: Size, to_px: Size, antialias: bool) -> list[Size]:
    """The sizes that a picture of `from_px` takes one after the other, the last of them `to_px`.

    Without `antialias` it is one step. With it sides shrink first, then those that grow do; no step before
    the last has more pixels than `from_px`.
    """
    if not antialias:
        return [to_px]
    less = min(from_px[0], to_px[0]), min(from_px[1], to_px[1])
    down, across = ((a // b).bit_length() - 1 for a, b in zip(from_px, less, strict=True))
    steps = [
        (less[0] << max(0, down - k), less[1] << max(0, across - k)) for k in range(max(down, across) + 1)
    ]
    if less != to_px:
        steps.append(to_px)
    return steps[1:] if len(steps) > 1 and steps[0] == from_px else steps


def resize_into(x_HWC: Array, out_HWC: Array, antialias: bool) -> None:
    """Fill `out_HWC` (C order) with `x_HWC` resized to its height and width."""
    *before, (height, width) = resize_steps(x_HWC.shape[:2], out_HWC.shape[:2], antialias)
    # Halving by INTER_LINEAR takes the mean of two pixels, or of four.
    for size in before:
        x_HWC = cv2.resize(x_HWC, size[::-1], interpolation=cv2.INTER_LINEAR)
    cv2.resize(x_HWC, (width, height), dst=out_HWC, interpolation=cv2.INTER_LINEAR)

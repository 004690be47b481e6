"""Roofs, shadows and yards on generated ground; which pixels are roof is what has to be learned.

A cell of the world holds one large roof, four small ones, a yard or nothing, drawn from a hash of the
cell's place. Coordinates inside a cell do not depend on the window, so neighbouring windows agree.

Shapes: H rows, W columns, C bands. Lengths are pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from caudal.core.geometry import Window

Floats = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]
Mask = npt.NDArray[np.uint8]
Hashes = npt.NDArray[np.uint64]

MARGIN_PX = 48
"""A roof that reaches into a window lies within this distance of it, whole."""

_CELL_PX = 48
_SUN = (0.62, 0.78)  # rows and columns that a shadow moves for each pixel of height
# Tiles are as bare soil, slate and concrete as roads, and sheet metal as pale yards.
_ROOFS = np.array(
    [
        [1120, 1380, 1900, 2380, 2800],
        [1280, 1370, 1450, 1660, 1820],
        [1150, 1330, 1650, 2050, 2350],
        [2150, 2350, 2500, 2700, 2650],
    ],
    np.float32,
)


@dataclass(frozen=True)
class Ground:
    """What lies in a window: bands, the mask, where nothing can be built, and how much stands around."""

    window: Window
    x_HWC: Floats
    y_HW: Mask
    taken_HW: Flags
    village_HW: Floats


@dataclass(frozen=True)
class _Site:
    """The square part of the ground around a place: its slices, and rows and columns from that place."""

    part: tuple[slice, slice]
    row_H1: Floats
    col_1W: Floats

    def turned(self, turn: float, row: float = 0.0, col: float = 0.0) -> tuple[Floats, Floats]:
        """Distances from (row, col) along and across the direction `turn`, in radians."""
        cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
        down, along = self.row_H1 - np.float32(row), self.col_1W - np.float32(col)
        return down * cos + along * sin, along * cos - down * sin


def mix(key: int, row: npt.NDArray[Any], col: npt.NDArray[Any]) -> Hashes:
    """64 random bits for each place; the finalizer of SplitMix64 (Steele et al., OOPSLA 2014)."""
    z: Hashes = row.astype(np.int64).view(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = z + col.astype(np.int64).view(np.uint64) * np.uint64(0xC2B2AE3D27D4EB4F)
    z += np.uint64(key)
    z ^= z >> np.uint64(30)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return z


def build(ground: Ground, key: int, turn: float) -> None:
    """Put roofs with their shadows, and bare yards, where the ground is free; streets run along `turn`."""
    window = ground.window
    for row in range(window.row // _CELL_PX, window.row_end // _CELL_PX + 1):
        for col in range(window.col // _CELL_PX, window.col_end // _CELL_PX + 1):
            seed = int(mix(key, np.array([row]), np.array([col]))[0])
            draw = np.random.Generator(np.random.Philox(key=seed))
            _cell(ground, (row * _CELL_PX - window.row, col * _CELL_PX - window.col), turn, draw)


def _cell(ground: Ground, corner: tuple[int, int], turn: float, draw: np.random.Generator) -> None:
    """Fill one cell, whose corner may lie outside the window. No two things in cells can touch."""
    middle = corner[0] + _CELL_PX // 2, corner[1] + _CELL_PX // 2
    if not (0 <= middle[0] < ground.window.height and 0 <= middle[1] < ground.window.width):
        return
    kind, busy = draw.random(), 0.42 + 0.3 * float(ground.village_HW[middle])
    turn += draw.normal(0, 0.12) if draw.random() < 0.7 else draw.uniform(0, 1.57)
    if kind < busy * 0.45:
        for down, along in ((-12, -12), (-12, 12), (12, -12), (12, 12)):
            place = down + draw.uniform(-1.5, 1.5), along + draw.uniform(-1.5, 1.5)
            sides = draw.uniform(6, 8.5), draw.uniform(4.8, 6)
            if draw.random() < 0.85:
                _roof(ground, middle, place, sides, turn + draw.normal(0, 0.05), draw)
    elif kind < busy * 1.2:
        place = draw.uniform(-3, 3), draw.uniform(-3, 3)
        _roof(ground, middle, place, (draw.uniform(10, 16), draw.uniform(6, 9)), turn, draw)
    elif kind < busy * 1.2 + 0.12:
        _yard(ground, middle, draw)


def _site(ground: Ground, middle: tuple[int, int], place: tuple[float, float], reach: float) -> _Site | None:
    """The ground within `reach` of `middle` + `place`; None where it sticks out of what is rendered."""
    size, starts = int(2 * reach) + 2, [int(np.floor(at - reach)) for at in place]
    row, col = middle[0] + starts[0], middle[1] + starts[1]
    if row < 0 or col < 0 or row + size > ground.window.height or col + size > ground.window.width:
        return None
    away = [
        (np.arange(size) + start - at).astype(np.float32) for start, at in zip(starts, place, strict=True)
    ]
    return _Site((slice(row, row + size), slice(col, col + size)), away[0][:, None], away[1][None, :])


def _colour(draw: np.random.Generator) -> Floats:
    spectrum: Floats = _ROOFS[int(draw.integers(len(_ROOFS)))] * np.float32(draw.uniform(0.82, 1.18))
    return spectrum


def _cover(part_HWC: Floats, share_HW: Any, spectrum: Any) -> None:
    part_HWC += share_HW[:, :, None] * (spectrum - part_HWC)


def _outside(uv: tuple[Floats, Floats], sides: tuple[float, float], wing: bool) -> Floats:
    """Distance to a rectangle, or to an L, below 0 inside."""
    (u, v), (a, b) = uv, (np.float32(side) for side in sides)
    far: Floats = np.maximum(np.abs(u) - a, np.abs(v) - b)
    if wing:
        half = np.float32(0.5)
        far = np.minimum(far, np.maximum(np.abs(u - half * a) - half * a, np.abs(v - half * b) - b))
    return far


def _roof(
    ground: Ground,
    middle: tuple[int, int],
    place: tuple[float, float],
    sides: tuple[float, float],
    turn: float,
    draw: np.random.Generator,
) -> None:
    """A roof of two slopes with its shadow; nothing where the ground is taken."""
    wing, spectrum = draw.random() < 0.4 and sides[1] > 6, _colour(draw)
    height, slope = draw.uniform(3, 6), np.float32(draw.uniform(0.08, 0.2))
    site = _site(ground, middle, place, float(np.hypot(*sides)) + 7)
    if site is None:
        return
    uv = site.turned(turn)
    far = _outside(uv, sides, wing)
    if ground.taken_HW[site.part][far < 2].any():
        return
    shade = _outside(site.turned(turn, height * _SUN[0], height * _SUN[1]), sides, wing)
    half = np.float32(0.5)
    ground.x_HWC[site.part] *= 1 - np.float32(0.6) * np.clip(half - shade, 0, 1)[:, :, None]
    lit = (1 + slope * np.where(uv[1] < 0, np.float32(-1), np.float32(1)))[:, :, None]
    _cover(ground.x_HWC[site.part], np.clip(half - far, 0, 1), lit * spectrum)
    ground.y_HW[site.part][far < 0] = 1


def _yard(ground: Ground, middle: tuple[int, int], draw: np.random.Generator) -> None:
    """A paved or bare patch with a roof's spectrum, but round, flat and without a shadow."""
    a, b, turn = draw.uniform(7, 15), draw.uniform(5, 9), draw.uniform(0, 3.14)
    site, spectrum = _site(ground, middle, (0.0, 0.0), a + 3), _colour(draw)
    if site is None:
        return
    u, v = site.turned(turn)
    # Its edge runs out over three pixels; a roof ends within one.
    inside = (1 - np.sqrt((u / np.float32(a)) ** 2 + (v / np.float32(b)) ** 2)) * np.float32(min(a, b) / 3)
    _cover(ground.x_HWC[site.part], np.clip(inside, 0, 1) * ~ground.taken_HW[site.part], spectrum)

"""A made-up countryside for each seed: 5-band ground with fields, woods, a river, roads, and roofs to find.

It has no end, and a window of it is made from nothing but its place: random numbers are hashes of
coordinates, so that a raster of any size is rendered window by window, without seams. Roofs have the
spectra of bare soil, roads and paved yards; edges, slopes and shadows tell them apart, and no threshold
on a pixel does. Writes no file.

Shapes: H rows, W columns, C bands. Values are reflectance × 10 000, lengths pixels of 2 m.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from caudal.core.geometry import Window
from caudal.core.seeds import integer
from caudal.data.roofs import MARGIN_PX, Flags, Floats, Ground, Hashes, Mask, build, mix

BAND_NAMES = ("blue", "green", "red", "nir", "swir")
PIXEL_M = 2.0
_FIELD_PX = 120

_SOIL = np.array([1150, 1400, 1850, 2350, 2850], np.float32)
_CROP = np.array([420, 800, 520, 4300, 1750], np.float32)
_MEADOW = np.array([620, 1000, 900, 3100, 2150], np.float32)
_WOOD = np.array([260, 460, 330, 2700, 1150], np.float32)
_WATER = np.array([620, 560, 380, 190, 90], np.float32)
_ASPHALT = np.array([1250, 1350, 1450, 1650, 1800], np.float32)


def _units(hashes: Hashes, number: int) -> Floats:
    """The random number `number` (0 to 4) in [0, 1) of each hash, of twelve bits."""
    return ((hashes >> np.uint64(12 * number)) & np.uint64(4095)).astype(np.float32) * np.float32(1 / 4096)


def _splines(start: int, size: int, cell: float) -> tuple[int, npt.NDArray[np.int64], Floats]:
    """The first lattice point, each pixel's first of four points, and its four weights (4, size)."""
    at = (start + np.arange(size)) / cell
    first = np.floor(at).astype(np.int64)
    t = (at - first).astype(np.float32)
    weights = [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]
    low = int(first[0]) - 1
    table: Floats = (np.stack(weights) / 6).astype(np.float32)
    return low, first - 1 - low, table


class World:
    """The ground of one seed; `render` gives any window of it."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._turn = 0.3 + 0.5 * (integer(seed, "scenes: turn") % 1000) / 1000

    def render(self, window: Window) -> tuple[npt.NDArray[np.uint16], Mask]:
        """The bands (H, W, 5) and the mask (H, W) of a window, which may lie anywhere."""
        grown = Window(
            window.row - MARGIN_PX,
            window.col - MARGIN_PX,
            window.height + 2 * MARGIN_PX,
            window.width + 2 * MARGIN_PX,
        )
        ground = self._ground(grown)
        build(ground, self._key("roofs"), self._turn)
        here = window.within(grown)
        x_HWC = self._sensed(window, _softened(ground.x_HWC)[here])
        return x_HWC, np.ascontiguousarray(ground.y_HW[here])

    def _key(self, name: str) -> int:
        return integer(self._seed, f"scenes: {name}")

    def _noise(self, name: str, window: Window, cell: float) -> Floats:
        """Smooth random numbers, nearly all in -1..1, that change over `cell` pixels."""
        row0, rows, down_4H = _splines(window.row, window.height, cell)
        col0, cols, along_4W = _splines(window.col, window.width, cell)
        lattice = np.meshgrid(
            np.arange(row0, row0 + rows[-1] + 4), np.arange(col0, col0 + cols[-1] + 4), indexing="ij"
        )
        points = 3.2 * (_units(mix(self._key(name), *lattice), 0) - np.float32(0.5))
        tall = sum(down_4H[k][:, None] * points[rows + k] for k in range(4))
        field: Floats = along_4W[0] * tall[:, cols]
        for k in range(1, 4):
            field += along_4W[k] * tall[:, cols + k]
        return field

    # The ground without buildings.

    def _ground(self, window: Window) -> Ground:
        row_HW = np.arange(window.row, window.row_end, dtype=np.float32)[:, None]
        col_HW = np.arange(window.col, window.col_end, dtype=np.float32)[None, :]
        grain = self._noise("grain", window, 2.5)
        x_HWC, edge_HW = self._fields(window, row_HW, col_HW)
        x_HWC *= (1 + 0.05 * grain + 0.09 * self._noise("patches", window, 22))[:, :, None]
        lush = self._noise("woods", window, 85) + 0.35 * self._noise("glades", window, 21)
        wood_HW = (lush > 0.62) | ((edge_HW < 2.2) & (lush > -0.25))
        crowns = 1 + 0.3 * self._noise("crowns", window, 3.5)
        _paint(x_HWC, wood_HW, _WOOD, crowns)
        road_HW = self._roads(window, row_HW, col_HW)
        _paint(x_HWC, road_HW < 2.4, _ASPHALT, 1 + 0.07 * self._noise("tar", window, 9))
        river_HW = self._river(window)
        _paint(x_HWC, river_HW < 16, _MEADOW, 1 + 0.1 * grain)
        _paint(x_HWC, river_HW < 11, _WATER, 1 + 0.06 * grain)
        taken_HW = wood_HW | (road_HW < 4.5) | (river_HW < 17)
        y_HW = np.zeros(taken_HW.shape, np.uint8)
        return Ground(window, x_HWC, y_HW, taken_HW, self._noise("villages", window, 170))

    def _fields(self, window: Window, row_HW: Floats, col_HW: Floats) -> tuple[Floats, Floats]:
        """Bands of the fields (the cells nearest to jittered points), and the distance to their borders."""
        turn = np.float32(self._turn)
        u = (row_HW * np.cos(turn) + col_HW * np.sin(turn)) / np.float32(_FIELD_PX)
        v = (col_HW * np.cos(turn) - row_HW * np.sin(turn)) / np.float32(_FIELD_PX * 0.7)
        iu, iv = np.floor(u).astype(np.int64), np.floor(v).astype(np.int64)
        u0, v0 = int(iu.min()) - 1, int(iv.min()) - 1
        cells = np.meshgrid(np.arange(u0, iu.max() + 2), np.arange(v0, iv.max() + 2), indexing="ij")
        random = mix(self._key("fields"), *cells)
        at_u = cells[0] + 0.5 + 0.62 * (_units(random, 0) - np.float32(0.5))
        at_v = cells[1] + 0.5 + 0.62 * (_units(random, 1) - np.float32(0.5))
        at_u, at_v = at_u.astype(np.float32).ravel(), at_v.astype(np.float32).ravel()
        wide = cells[0].shape[1]
        middle = (iu - u0) * wide + (iv - v0)
        best = np.full(u.shape, np.inf, np.float32)
        second, owner = best.copy(), middle
        for step in (a * wide + b for a in (-1, 0, 1) for b in (-1, 0, 1)):
            cell = middle + step
            far = (u - at_u[cell]) ** 2 + (v - at_v[cell]) ** 2
            nearer = far < best
            second = np.where(nearer, best, np.minimum(second, far))
            owner = np.where(nearer, cell, owner)
            best = np.minimum(best, far)
        border = (np.sqrt(second) - np.sqrt(best)) * np.float32(_FIELD_PX / 2)
        return self._tilled(random.ravel(), owner, row_HW, col_HW), border

    def _tilled(self, random: Hashes, owner: npt.NDArray[np.int64], row_HW: Floats, col_HW: Floats) -> Floats:
        """Crops from bare to full, one for each field, with rows along its own direction."""
        green, angle = _units(random, 2), 3.14 * _units(random, 3)
        green = np.where(green < 0.42, 0.1 * green, green)[:, None]
        bare = np.where(_units(random, 4)[:, None] < 0.45, _MEADOW, _SOIL)
        spectra = (1 - green) * bare + green * _CROP
        spectra *= 0.85 + 0.3 * _units(mix(1, random.view(np.int64), random.view(np.int64)), 0)[:, None]
        pitch = 1.1 / (3.2 + 4 * _units(random, 1))
        down, along = (pitch * np.cos(angle))[owner], (pitch * np.sin(angle))[owner]
        rows = np.sin(6.28 * (row_HW * down + col_HW * along))
        field: Floats = spectra.astype(np.float32)[owner]
        field *= (1 + 0.05 * rows.astype(np.float32))[:, :, None]
        return field

    def _roads(self, window: Window, row_HW: Floats, col_HW: Floats) -> Floats:
        """Distance to the middle of the nearest road: two bent families that cross."""
        turn, bend = np.float32(self._turn), 26 * self._noise("bends", window, 190)
        nearest = np.full(bend.shape, np.inf, np.float32)
        for pitch, u in (
            (290, row_HW * np.cos(turn) + col_HW * np.sin(turn) + bend),
            (410, col_HW * np.cos(turn) - row_HW * np.sin(turn) + bend),
        ):
            away = np.abs(u / np.float32(pitch) - np.round(u / np.float32(pitch))) * np.float32(pitch)
            nearest = np.minimum(nearest, away)
        return nearest

    def _river(self, window: Window) -> Floats:
        """Distance to a level line of a smooth field: it winds, and never ends within sight."""
        height = self._noise("river", window, 430) + 0.1 * self._noise("meanders", window, 120)
        down, along = np.gradient(height)
        slope = np.sqrt(down**2 + along**2) + np.float32(1e-4)
        distance: Floats = np.abs(height - np.float32(0.35)) / slope
        return distance

    def _sensed(self, window: Window, x_HWC: Floats) -> npt.NDArray[np.uint16]:
        """Uneven light, and noise that grows with the signal."""
        light = 1 + 0.1 * self._noise("light", window, 800)
        places = np.meshgrid(
            np.arange(window.row, window.row_end), np.arange(window.col, window.col_end), indexing="ij"
        )
        one, two = (mix(self._key(name), *places) for name in ("sensor one", "sensor two"))
        values = np.empty(x_HWC.shape, np.uint16)
        for band in range(x_HWC.shape[2]):
            noise = _units(one, band) + _units(two, band) - 1
            value = x_HWC[:, :, band] * light
            values[:, :, band] = np.clip(value + noise * (45 + 0.03 * value) + 0.5, 1, 10_000)
        return values


def _paint(x_HWC: Floats, where_HW: Flags, spectrum: Floats, light_HW: Floats) -> None:
    x_HWC[where_HW] = spectrum * light_HW[where_HW][:, None]


def _softened(x_HWC: Floats) -> Floats:
    """What an optic does to edges: each pixel takes a little of its neighbours."""
    soft = 0.7 * x_HWC
    soft[1:-1] += 0.15 * (x_HWC[:-2] + x_HWC[2:])
    sharp = soft.copy()
    soft *= 0.7
    soft[:, 1:-1] += 0.15 * (sharp[:, :-2] + sharp[:, 2:])
    return soft

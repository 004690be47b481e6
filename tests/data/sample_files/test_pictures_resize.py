"""Shrinking a picture uses all of it, comes near to averaging areas, and goes by sizes that never grow."""

from __future__ import annotations

from itertools import pairwise
from math import prod
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st

from caudal.data.sample_files.base import Array
from caudal.data.sample_files.picture_resize import resize_into, resize_steps

side = st.integers(1, 5000)


def resized(x_HWC: Array, size: tuple[int, int], antialias: bool = True) -> Array:
    out_HWC = np.zeros((*size, 3), np.uint8)
    resize_into(x_HWC, out_HWC, antialias)
    return out_HWC


def away_from_areas(x_HWC: Array, size: tuple[int, int], antialias: bool = True) -> float:
    """The mean distance from averaging areas, in levels of 256."""
    area = cv2.resize(x_HWC, size[::-1], interpolation=cv2.INTER_AREA)
    return float(np.abs(resized(x_HWC, size, antialias).astype(int) - area).mean())


@given(side, side, side, side)
def test_sides_shrink_by_less_than_half_then_by_halves_and_grow_last(
    height: int, width: int, to_height: int, to_width: int
) -> None:
    steps = resize_steps((height, width), (to_height, to_width), True)
    assert steps[-1] == (to_height, to_width)
    assert all(prod(step) <= height * width for step in steps[:-1])
    for axis, asked in enumerate((to_height, to_width)):
        sides = [(height, width)[axis], *(step[axis] for step in steps)]
        shrunk = [a / b for a, b in pairwise(sides) if a > b]
        assert all(factor <= 2 for factor in shrunk)
        assert all(factor == 2 for factor in shrunk[1:])
        grown = [k for k, (a, b) in enumerate(pairwise(sides)) if a < b]
        assert grown == ([len(steps) - 1] if asked > sides[0] else [])
    assert resize_steps((height, width), (to_height, to_width), False) == [(to_height, to_width)]


@pytest.mark.data
def test_photographs_come_out_as_if_areas_were_averaged(data_dir: Path) -> None:
    paths = sorted((data_dir / "lesion").rglob("*.jpg"))[::5]
    assert len(paths) > 30
    for size in ((224, 224), (96, 128), (300, 200), (32, 32)):
        with_it, without = [], []
        for path in paths:
            x_HWC = simplejpeg.decode_jpeg(path.read_bytes())
            with_it.append(away_from_areas(x_HWC, size))
            without.append(away_from_areas(x_HWC, size, antialias=False))
        assert max(with_it) <= 1.0
        assert np.mean(with_it) < 0.7 * np.mean(without)


def test_what_is_finer_than_the_result_is_averaged_not_picked() -> None:
    noise_HWC = np.random.default_rng(3).integers(0, 256, (1500, 2000, 3), np.uint8)
    for size in ((224, 224), (96, 128)):
        assert away_from_areas(noise_HWC, size) < 4
        assert away_from_areas(noise_HWC, size, antialias=False) > 30


def test_by_powers_of_two_areas_are_averaged_but_for_rounding() -> None:
    x_HWC = np.random.default_rng(4).integers(0, 256, (256, 384, 3), np.uint8)
    for down, across in ((2, 2), (2, 4), (8, 1), (8, 8)):
        size = 256 // down, 384 // across
        area = x_HWC.reshape(size[0], down, size[1], across, 3).mean((1, 3))
        assert np.abs(resized(x_HWC, size) - area).max() <= 2


def test_a_size_that_stays_is_copied() -> None:
    x_HWC = np.random.default_rng(5).integers(0, 256, (40, 30, 3), np.uint8)
    for antialias in (True, False):
        np.testing.assert_array_equal(resized(x_HWC, (40, 30), antialias), x_HWC)

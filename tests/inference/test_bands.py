"""Bands hold the rows that tiles read, and what is kept of them is bounded."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from caudal.inference.bands import MOST_CARRIED_BYTES, bands_for
from tests.inference.test_tiles import grids

BLOCKS = st.sampled_from([1, 16, 128, 256, 512, 3000])


@given(grids(st.integers(1, 3000), st.sampled_from([64, 128, 512])), BLOCKS)
def test_the_bands_of_a_row_of_tiles_hold_its_rows_without_gaps(grid, block_px) -> None:
    bands = bands_for(grid, block_px, 4)
    for row in range(grid.rows):
        read = grid.tile(row, 0).read
        rows = [bands.rows(band) for band in bands.of(row)]
        assert rows[0][0] <= read.row < rows[0][1]
        assert rows[-1][0] < read.row_end <= rows[-1][1] <= grid.height
        assert all(a[1] == b[0] for a, b in itertools.pairwise(rows))


@given(grids(st.integers(1, 3000), st.sampled_from([64, 128, 512])), BLOCKS, st.integers(1, 500))
def test_what_is_held_is_bounded_and_told(grid, block_px, pixel_bytes) -> None:
    bands = bands_for(grid, block_px, pixel_bytes)
    assert bands.carried_px * grid.width * pixel_bytes <= MOST_CARRIED_BYTES
    for row in range(grid.rows):
        here, following = bands.of(row), bands.of(row + 1) if row + 1 < grid.rows else range(0)
        height = bands.rows(here[-1])[1] - bands.rows(here[0])[0]
        assert height <= bands.carried_px + bands.passing_px
        shared = [bands.rows(band) for band in here if band in following]
        assert sum(end - start for start, end in shared) <= bands.carried_px


@given(grids(st.integers(1, 3000), st.sampled_from([64, 128, 512])))
def test_blocks_higher_than_tiles_are_left_to_each_row_of_tiles(grid) -> None:
    bands = bands_for(grid, 4096, 1)
    assert bands.unit is None
    assert bands.carried_px == 0

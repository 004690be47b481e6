"""The grid covers every pixel once, reads inside the raster, and starts where the model's stride wants it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from caudal.core.errors import UsageError
from caudal.core.geometry import round_up
from caudal.inference.blend import fade_in, weights_of
from caudal.inference.tiles import Mode, TileGrid

SIZES = st.integers(1, 150)


@st.composite
def grids(
    draw: st.DrawFn, sizes: st.SearchStrategy[int] = SIZES, cores: st.SearchStrategy[int] | None = None
) -> TileGrid:
    multiple = draw(st.sampled_from([1, 2, 8, 16]))
    core = multiple * draw(st.integers(max(1, 8 // multiple), 40 // multiple + 1))
    core = core if cores is None else draw(cores)
    mode: Mode = draw(st.sampled_from(["blend", "exact"]))
    context = draw(st.integers(0, core // 2 // multiple * multiple if mode == "blend" else 50))
    return TileGrid(draw(sizes), draw(sizes), core, context, multiple, mode)


@given(grids())
def test_every_pixel_is_finished_once(grid: TileGrid) -> None:
    times_HW = np.zeros((grid.height, grid.width), int)
    for tile in grid:
        times_HW[tile.finish.slices] += 1
    assert (times_HW == 1).all()


@given(grids())
def test_a_tile_finishes_what_it_reads_and_reads_inside_the_raster(grid: TileGrid) -> None:
    for tile in grid:
        assert tile.read.clip(grid.height, grid.width) == tile.read
        assert tile.finish.intersect(tile.read) == tile.finish
        assert tile.finish.area_px > 0


@given(grids())
def test_only_tiles_at_the_far_edges_need_padding(grid: TileGrid) -> None:
    for tile in grid:
        assert tile.read.row % grid.multiple == tile.read.col % grid.multiple == 0
        assert tile.read.height % grid.multiple == 0 or tile.read.row_end == grid.height
        assert tile.read.width % grid.multiple == 0 or tile.read.col_end == grid.width


@given(grids())
def test_no_tile_is_larger_than_the_largest(grid: TileGrid) -> None:
    for tile in grid:
        assert round_up(tile.read.height, grid.multiple) <= grid.largest[0]
        assert round_up(tile.read.width, grid.multiple) <= grid.largest[1]


@given(grids().filter(lambda grid: grid.mode == "exact"))
def test_exact_tiles_see_their_context_and_have_one_shape(grid: TileGrid) -> None:
    shapes = set()
    for tile in grid:
        read, finish = tile.read, tile.finish
        assert read.row <= max(0, finish.row - grid.context)
        assert read.col <= max(0, finish.col - grid.context)
        assert read.row_end >= min(grid.height, finish.row_end + grid.context)
        assert read.col_end >= min(grid.width, finish.col_end + grid.context)
        shapes.add((round_up(read.height, grid.multiple), round_up(read.width, grid.multiple)))
    assert shapes == {grid.largest}


@given(grids().filter(lambda grid: grid.mode == "blend"))
def test_blend_finishes_on_multiples_of_the_core_and_leaves_no_sliver(grid: TileGrid) -> None:
    for tile in grid:
        assert tile.finish.row % grid.core == tile.finish.col % grid.core == 0
        assert tile.row_index == 0 or tile.read.height > grid.overlap
        assert tile.col_index == 0 or tile.read.width > grid.overlap


@given(grids().filter(lambda grid: grid.mode == "blend"))
def test_blending_weights_sum_to_one(grid: TileGrid) -> None:
    total_HW = np.zeros((grid.height, grid.width))
    for tile in grid:
        rows, cols = weights_of(grid, tile)
        assert rows.min() > 0
        assert cols.min() > 0
        total_HW[tile.read.slices] += np.outer(rows, cols)
    np.testing.assert_allclose(total_HW, 1, atol=1e-6)


@given(st.integers(1, 300))
def test_the_fade_rises_and_its_mirror_is_its_complement(overlap: int) -> None:
    fade = fade_in(overlap)
    assert (np.diff(fade) > 0).all()
    np.testing.assert_allclose(fade + fade[::-1], 1, atol=1e-6)


@pytest.mark.parametrize(
    ("core", "context", "multiple", "mode"),
    [
        (100, 8, 16, "exact"),
        (100, 8, 16, "blend"),
        (64, 33, 1, "blend"),
        (64, 40, 16, "blend"),
        (0, 0, 1, "exact"),
        (64, -1, 1, "exact"),
    ],
)
def test_nonsense_is_refused_with_a_mend(core: int, context: int, multiple: int, mode: str) -> None:
    with pytest.raises(UsageError) as caught:
        TileGrid(500, 500, core, context, multiple, mode)  # type: ignore[arg-type]
    assert caught.value.hint

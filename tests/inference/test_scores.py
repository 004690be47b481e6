"""Regions of scores: the model that copies gives the raster back, whatever its size and its tiles."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from caudal.core.errors import IncompleteOutput
from caudal.core.geometry import Window
from caudal.inference import blend
from caudal.inference.blend import Accumulator, weights_of
from caudal.inference.scores import score_windows
from caudal.inference.tiles import TileGrid
from tests.inference.sources import MadeUp, as_scores, broken_at, held, noise

EDGES = st.sampled_from([1, 2, 15, 16, 17, 31, 63, 65, 97, 130, 161])
Scores = npt.NDArray[np.float32]


def collect(
    source: MadeUp, forward: Callable[..., Scores], grid: TileGrid, channels: int, **more: Any
) -> Scores:
    out_CHW = np.full((channels, grid.height, grid.width), np.nan, np.float32)
    for region in score_windows(source, forward, grid, channels, **more):
        area = (slice(None), *region.window.slices)
        assert np.isnan(out_CHW[area]).all()
        if region.scores_CHW is not None:
            valid = True if region.valid_HW is None else region.valid_HW
            out_CHW[area] = np.where(valid, region.scores_CHW, np.nan)
    return out_CHW


class Net(nn.Module):
    """Zero-padded convolutions around one stride of 2: misaligned tiles and wrong padding both show."""

    context = 8
    multiple = 2

    def __init__(self, bands: int, channels: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(bands, 6, 3, padding=1)
        self.down = nn.Conv2d(6, 6, 3, padding=1)
        self.last = nn.Conv2d(6, channels, 3, padding=1)

    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        high = torch.relu(self.first(x_NCHW))
        low = torch.relu(self.down(nn.functional.max_pool2d(high, 2)))
        out: torch.Tensor = self.last(high + nn.functional.interpolate(low, scale_factor=2.0))
        return out


@pytest.fixture(scope="module")
def run_net() -> Callable[[Any, Any], Scores]:
    net = Net(2, 3).eval()

    def run(x_NHWC: Any, valid_NHW: Any) -> Scores:
        with torch.no_grad():
            x = torch.from_numpy(np.ascontiguousarray(x_NHWC)).permute(0, 3, 1, 2).float() / 255
            return net(x).contiguous().numpy()  # type: ignore[no-any-return]

    return run


def untiled(run: Callable[..., Scores], x_HWC: Any) -> Scores:
    height, width, _ = x_HWC.shape
    padded = np.pad(x_HWC, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return run(padded[None], None)[0, :, :height, :width]


@settings(deadline=None, max_examples=40)
@given(EDGES, EDGES, st.integers(1, 3), st.integers(1, 3))
def test_exact_tiles_of_the_copying_model_are_the_raster(
    height: int, width: int, batch: int, threads: int
) -> None:
    x_HWC = noise(height, width, 2)
    grid = TileGrid(height, width, 32, 5, 16, "exact")
    got = collect(held(x_HWC), as_scores, grid, 2, batch=batch, threads=threads)
    np.testing.assert_array_equal(got, x_HWC.transpose(2, 0, 1))


@settings(deadline=None, max_examples=40)
@given(EDGES, EDGES, st.integers(1, 3))
def test_blended_tiles_of_the_copying_model_are_the_raster(height: int, width: int, batch: int) -> None:
    x_HWC = noise(height, width, 2)
    grid = TileGrid(height, width, 32, 8, 16, "blend")
    got = collect(held(x_HWC), as_scores, grid, 2, batch=batch)
    # Half floats between tile rows: 11 bits of the strip's peak, 200.
    np.testing.assert_allclose(got, x_HWC.transpose(2, 0, 1), atol=200 * 2**-11)


@settings(deadline=None, max_examples=30)
@given(st.sampled_from([1, 2, 33, 50, 77]), st.sampled_from([1, 3, 31, 64, 95]), st.integers(1, 4))
def test_exact_tiles_equal_the_untiled_model(
    run_net: Callable[..., Scores], height: int, width: int, batch: int
) -> None:
    x_HWC = noise(height, width, 2)
    grid = TileGrid(height, width, 24, Net.context, Net.multiple, "exact")
    got = collect(held(x_HWC), run_net, grid, 3, batch=batch, threads=2)
    np.testing.assert_allclose(got, untiled(run_net, x_HWC), atol=1e-5)


def test_too_little_context_shows(run_net: Callable[..., Scores]) -> None:
    x_HWC = noise(90, 90, 2)
    got = collect(held(x_HWC), run_net, TileGrid(90, 90, 24, 0, 2, "exact"), 3)
    assert np.abs(got - untiled(run_net, x_HWC)).max() > 1e-3


@pytest.mark.parametrize("whole_floats_bytes", [0, 2**20])
@pytest.mark.parametrize("mode", ["exact", "blend"])
def test_blending_needs_the_tiles_weights_and_nothing_else(
    mode: Any, whole_floats_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`Accumulator`, strip by strip, against the plain sum of weighted tiles."""
    monkeypatch.setattr(blend, "WHOLE_FLOATS_BYTES", whole_floats_bytes)
    grid = TileGrid(150, 131, 32, 8, 16, mode)
    rng = np.random.default_rng(0)
    joined, truth = Accumulator(grid, 2), np.zeros((2, 150, 131))
    got = np.zeros((2, 150, 131))
    for tile in grid:
        scores = rng.normal(size=(2, tile.read.height, tile.read.width)).astype(np.float32) * 1e6
        rows, cols = weights_of(grid, tile)
        if mode == "blend":
            truth[(slice(None), *tile.read.slices)] += scores * np.outer(rows, cols)
        else:
            inner = (slice(None), *tile.finish.within(tile.read))
            truth[(slice(None), *tile.finish.slices)] = scores[inner]
        got[(slice(None), *tile.finish.slices)] = joined.add(tile, scores)
    np.testing.assert_allclose(got, truth, atol=6 if whole_floats_bytes else 6e6 * 2**-11)


def test_the_strip_between_tile_rows_is_all_that_grows_with_the_width() -> None:
    narrow, wide = (Accumulator(TileGrid(9000, w, 1024, 64, 16, "blend"), 1) for w in (2000, 36000))
    assert wide.held_bytes - narrow.held_bytes < 10e6


@pytest.mark.parametrize("mode", ["exact", "blend"])
@pytest.mark.parametrize("shape", [(80, 80), (50, 97)])
def test_averaging_over_symmetries_of_the_copying_model_changes_nothing(
    mode: Any, shape: tuple[int, int]
) -> None:
    x_HWC = noise(*shape, 1)
    grid = TileGrid(*shape, 32, 8, 16, mode)
    got = collect(held(x_HWC), as_scores, grid, 1, batch=2, average_d4=True)
    np.testing.assert_allclose(got, x_HWC.transpose(2, 0, 1), atol=0.1)


def test_averaging_over_symmetries_forgets_directions() -> None:
    def slope(x_NHWC: Any, valid_NHW: Any) -> Scores:
        count, height, width, _ = x_NHWC.shape
        ramp = np.arange(height)[:, None] * 3 + np.arange(width)
        return np.broadcast_to(ramp, (count, 1, height, width)).astype(np.float32)

    got = collect(held(noise(32, 32)), slope, TileGrid(32, 32, 32, 0), 1, average_d4=True)
    np.testing.assert_allclose(got, got.mean(), rtol=1e-6)


def test_averaging_keeps_validity_with_its_pixels() -> None:
    valid_HW = noise(40, 56)[..., 0] > 60
    x_HWC = np.where(valid_HW[..., None], 1, 0).astype(np.uint8)

    def agrees(x_NHWC: Any, valid_NHW: Any) -> Scores:
        assert ((x_NHWC[..., 0] == 1) == valid_NHW).all()
        return as_scores(x_NHWC, valid_NHW)

    collect(held(x_HWC, valid_HW), agrees, TileGrid(40, 56, 32, 8, 16, "exact"), 1, average_d4=True)


def test_tiles_of_one_shape_go_through_the_model_together() -> None:
    sizes = []

    def note(x_NHWC: Any, valid_NHW: Any) -> Scores:
        sizes.append(len(x_NHWC))
        return as_scores(x_NHWC, valid_NHW)

    collect(held(noise(128, 128)), note, TileGrid(128, 128, 32, 4, 16, "exact"), 1, batch=5)
    assert sizes == [5, 5, 5, 1]


@pytest.mark.parametrize("mode", ["exact", "blend"])
def test_tiles_without_a_valid_pixel_never_reach_the_model(mode: Any) -> None:
    x_HWC, valid_HW = noise(96, 96), np.zeros((96, 96), bool)
    valid_HW[40:90, 50] = True
    seen = []

    def note(x_NHWC: Any, valid_NHW: Any) -> Scores:
        seen.extend(valid_NHW.any(axis=(1, 2)))
        return as_scores(x_NHWC, valid_NHW)

    grid = TileGrid(96, 96, 32, 8, 1, mode)
    got = collect(held(x_HWC, valid_HW), note, grid, 1, batch=3)
    assert all(seen)
    assert len(seen) < len(grid)
    np.testing.assert_array_equal(np.isnan(got[0]), ~valid_HW)
    np.testing.assert_allclose(got[0][valid_HW], x_HWC[..., 0][valid_HW], atol=0.2)


@pytest.mark.parametrize("mode", ["exact", "blend"])
def test_numbers_that_are_none_are_refused_where_pixels_are_valid(mode: Any) -> None:
    x_HWC, valid_HW = noise(64, 64), np.ones((64, 64), bool)
    valid_HW[:20, :20] = False

    def spoil(row: int) -> Callable[..., Scores]:
        def forward(x_NHWC: Any, valid_NHW: Any) -> Scores:
            scores = as_scores(x_NHWC, valid_NHW)
            scores[0, 0, row, 3] = np.nan
            return scores

        return forward

    grid = TileGrid(64, 64, 64, 8, 16, mode)
    got = collect(held(x_HWC, valid_HW), spoil(10), grid, 1)
    np.testing.assert_array_equal(np.isnan(got[0]), ~valid_HW)
    with pytest.raises(IncompleteOutput):
        collect(held(x_HWC, valid_HW), spoil(30), grid, 1)


@pytest.mark.parametrize("mode", ["exact", "blend"])
def test_what_a_broken_block_costs_is_its_tiles_and_no_more(mode: Any) -> None:
    x_HWC, grid = noise(160, 160), TileGrid(160, 160, 32, 8, 16, mode)
    source = broken_at(held(x_HWC), Window(70, 70, 1, 1))
    got = collect(source, as_scores, grid, 1, batch=2)[0]
    lost = np.zeros((160, 160), bool)
    for tile in grid:
        if tile.read.intersect(Window(70, 70, 1, 1)).area_px:
            lost[(tile.read if mode == "blend" else tile.finish).slices] = True
    np.testing.assert_array_equal(np.isnan(got), lost)
    np.testing.assert_allclose(got[~lost], x_HWC[..., 0][~lost], atol=0.2)


def test_small_blocks_are_decoded_about_once_and_large_ones_just_once(tmp_path: Path) -> None:
    x_HWC = noise(500, 600)
    grid = TileGrid(500, 600, 64, 8, 16, "blend")
    small = held(x_HWC, block=(16, 16))
    collect(small, as_scores, grid, 1, scratch=tmp_path)
    assert sum(window.area_px for window in small.reads) < 1.3 * x_HWC.size
    for block in ((3, 600), (500, 600), (400, 300)):
        large = held(x_HWC, block=block)
        got = collect(large, as_scores, grid, 1, batch=2, threads=3, scratch=tmp_path)
        np.testing.assert_allclose(got[0], x_HWC[..., 0], atol=0.2)
        assert sum(window.area_px for window in large.reads) == x_HWC.size
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("mode", ["exact", "blend"])
@pytest.mark.parametrize("block", [64, 128, 256])
def test_what_rows_of_tiles_share_is_decoded_once(mode: Any, block: int) -> None:
    x_HWC = noise(900, 700)
    source = held(x_HWC, block=(block, block))
    got = collect(source, as_scores, TileGrid(900, 700, 256, 32, 16, mode), 1, batch=2, threads=2)
    np.testing.assert_allclose(got[0], x_HWC[..., 0], atol=0.2)
    assert sum(window.area_px for window in source.reads) == x_HWC.size
    assert all(window.row % block == 0 for window in source.reads)


def test_a_failing_model_stops_the_readers() -> None:
    import threading

    def fail(x_NHWC: Any, valid_NHW: Any) -> Scores:
        raise RuntimeError("out of luck")

    before = threading.active_count()
    with pytest.raises(RuntimeError, match="out of luck"):
        collect(held(noise(300, 300)), fail, TileGrid(300, 300, 32, 8), 1, batch=2, threads=3)
    assert threading.active_count() == before

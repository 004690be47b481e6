"""Laws of the generated scenes: a pure function of the seed and the place, and not solved by a threshold."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import rasterio

from caudal.core.geometry import Window
from caudal.data.readers import reader_for
from caudal.data.scenes import make_raster, make_scenes
from caudal.data.world import BAND_NAMES, World


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    make_scenes(folder, 4, (256, 320), seed=5)
    return folder


def _iou(predicted_HW: np.ndarray, truth_HW: np.ndarray) -> float:
    return float((predicted_HW & truth_HW).sum() / (predicted_HW | truth_HW).sum())


def test_the_same_seed_gives_the_same_bytes(scenes: Path, tmp_path: Path) -> None:
    make_scenes(tmp_path, 4, (256, 320), seed=5)
    files = sorted(path.relative_to(scenes) for path in scenes.rglob("*.tif"))
    assert [str(path) for path in files] == [
        f"{kind}/scene-{number:03d}.tif" for kind in ("images", "masks") for number in (1, 2, 3, 4)
    ]
    for path in files:
        assert (tmp_path / path).read_bytes() == (scenes / path).read_bytes()


def test_another_seed_gives_another_country() -> None:
    window = Window(0, 0, 96, 96)
    assert (World(1).render(window)[0] != World(2).render(window)[0]).mean() > 0.9


@pytest.mark.parametrize("part", [Window(-40, 10, 64, 64), Window(3, 77, 101, 50), Window(60, -30, 90, 170)])
def test_a_window_holds_the_same_pixels_whatever_it_is_cut_from(part: Window) -> None:
    world, whole = World(9), Window(-40, -30, 190, 170)
    x_HWC, y_HW = world.render(whole)
    part_x_HWC, part_y_HW = world.render(part)
    np.testing.assert_array_equal(part_x_HWC, x_HWC[part.within(whole)])
    np.testing.assert_array_equal(part_y_HW, y_HW[part.within(whole)])


def test_scenes_are_tiled_named_and_lie_side_by_side(scenes: Path) -> None:
    with rasterio.open(scenes / "images/scene-001.tif") as one:
        assert (one.count, one.height, one.width) == (5, 256, 320)
        assert one.dtypes == ("uint16",) * 5
        assert one.descriptions == BAND_NAMES
        assert one.crs.to_epsg() == 32630
        assert (one.transform.a, one.transform.e) == (2.0, -2.0)
        assert one.block_shapes == [(256, 256)] * 5
        assert one.profile["compress"] == "deflate"
        assert one.tags(ns="IMAGE_STRUCTURE")["PREDICTOR"] == "2"
        with rasterio.open(scenes / "images/scene-002.tif") as two:
            assert (two.bounds.left, two.bounds.top) == (one.bounds.right, one.bounds.top)
        with rasterio.open(scenes / "images/scene-003.tif") as below:
            assert (below.bounds.left, below.bounds.top) == (one.bounds.left, one.bounds.bottom)
    with rasterio.open(scenes / "masks/scene-001.tif") as mask:
        assert mask.dtypes == ("uint8",)
        assert mask.count == 1


def test_the_own_reader_reads_what_was_written(scenes: Path) -> None:
    path = scenes / "images/scene-004.tif"
    with reader_for(path).open(path) as source:
        x_HWC = source.read(source.header.window).x_HWC
    np.testing.assert_array_equal(x_HWC, World(5).render(Window(256, 320, 256, 320))[0])
    assert source.header.band_names == BAND_NAMES


def test_every_scene_of_the_usual_size_has_roofs_and_mostly_other_ground() -> None:
    for seed in (0, 1, 2):
        for place in (0, 5 * 512):
            share = World(seed).render(Window(place, 0, 512, 512))[1].mean()
            assert 0.005 < share < 0.2


def test_no_threshold_on_a_pixel_finds_the_roofs() -> None:
    x_HWC, y_HW = World(0).render(Window(0, 0, 512, 512))
    truth = y_HW.ravel() == 1
    x = np.log(x_HWC.reshape(-1, 5).astype(np.float64))
    # Fisher's direction is the best linear one; single bands are thresholds that anyone would try.
    spread = np.cov(x[truth].T) + np.cov(x[~truth].T)
    directions = [np.linalg.solve(spread, x[truth].mean(0) - x[~truth].mean(0)), *np.eye(5)]
    best = max(
        _iou(x @ direction > cut, truth)
        for direction in directions
        for cut in np.quantile(x @ direction, np.linspace(0.5, 0.995, 40))
    )
    assert best < 0.5


def test_a_raster_is_the_world_in_one_piece(tmp_path: Path) -> None:
    make_raster(tmp_path / "county.tif", (300, 600), seed=5)
    with rasterio.open(tmp_path / "county.tif") as file:
        assert file.descriptions == BAND_NAMES
        x_HWC = np.moveaxis(file.read(), 0, 2)
    np.testing.assert_array_equal(x_HWC, World(5).render(Window(-300, 0, 300, 600))[0])
    assert not list(tmp_path.glob("*.part"))


def test_a_raster_lies_beside_the_scenes_and_shares_no_pixel_with_them(scenes: Path, tmp_path: Path) -> None:
    make_raster(tmp_path / "county.tif", (64, 64), seed=5)
    with (
        rasterio.open(tmp_path / "county.tif") as raster,
        rasterio.open(scenes / "images/scene-001.tif") as scene,
    ):
        assert raster.bounds.bottom == scene.bounds.top


def test_memory_does_not_grow_with_the_raster(tmp_path: Path) -> None:
    def peak(size_px: tuple[int, int]) -> int:
        tracemalloc.start()
        make_raster(tmp_path / "county.tif", size_px, seed=5)
        held = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return held

    peak((64, 64))  # loads what is loaded once
    assert peak((1024, 1024)) < 1.1 * peak((512, 512))

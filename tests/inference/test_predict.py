"""A raster goes in, a covered raster comes out; what could not be read or predicted is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin
from rio_cogeo.cogeo import cog_validate

from caudal.core.errors import UnreadableFile, UsageError
from caudal.core.events import Event, TileDone, Warned
from caudal.core.geometry import Window
from caudal.inference.encode import Output
from caudal.inference.mosaic import Georeference
from caudal.inference.predict import predict_raster
from caudal.inference.tiles import TileGrid
from tests.inference.sources import as_scores, broken_at, held, noise

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

PLACE = Georeference("EPSG:32630", from_origin(500_000, 4_000_000, 0.25, 0.5))
TWO = Output(("low", "high"))


def two_classes(x_NHWC: Any, valid_NHW: Any) -> Any:
    first = x_NHWC[..., 0].astype(np.float32)
    return np.stack([100 - first, first - 100], axis=1)


@pytest.mark.parametrize("mode", ["exact", "blend"])
def test_a_class_map_covers_the_raster_and_lies_on_it(tmp_path: Path, mode: Any) -> None:
    x_HWC = noise(700, 1111, 3)
    valid_HW = noise(700, 1111, seed=1)[..., 0] > 20
    valid_HW[:300, :300] = False
    events: list[Event] = []
    grid = TileGrid(700, 1111, 128, 16, 16, mode)
    summary = predict_raster(
        held(x_HWC, valid_HW), two_classes, tmp_path / "map.tif", grid, TWO,
        batch=3, threads=2, georeference=PLACE, events=events.append,
    )  # fmt: skip
    with rasterio.open(tmp_path / "map.tif") as raster:
        got_HW = raster.read(1)
        assert (raster.shape, raster.crs, raster.transform) == ((700, 1111), PLACE.crs, PLACE.transform)
        assert (raster.nodata, raster.dtypes, raster.overviews(1)) == (255, ("uint8",), [2, 4])
        assert raster.tags()["CLASSES"] == "low|high"
    np.testing.assert_array_equal(got_HW, np.where(valid_HW, x_HWC[..., 0] > 100, 255))
    assert cog_validate(tmp_path / "map.tif", strict=True, quiet=True)[0]
    assert summary.predicted_px == summary.valid_px == np.count_nonzero(valid_HW)
    assert summary.total_px == valid_HW.size
    assert summary.tiles_without_data > 0
    assert [event.done for event in events if isinstance(event, TileDone)] == list(range(1, len(grid) + 1))


@pytest.mark.parametrize(("dtype", "atol"), [("uint8", 0.5 / 254), ("uint16", 0.5 / 65534), ("float32", 0)])
def test_scores_come_back_through_their_scale(tmp_path: Path, dtype: Any, atol: float) -> None:
    x_HWC = noise(600, 520, 2)
    output = Output(("a", "b"), "scores", dtype, low=0, high=200)
    valid_HW = np.ones((600, 520), bool)
    valid_HW[5, 7] = False
    grid = TileGrid(600, 520, 256, 16, 16, "exact")
    summary = predict_raster(held(x_HWC, valid_HW), as_scores, tmp_path / "s.tif", grid, output)
    with rasterio.open(tmp_path / "s.tif") as raster:
        got = raster.read(masked=True).astype(np.float64)
        got = got * np.array(raster.scales)[:, None, None] + np.array(raster.offsets)[:, None, None]
        assert raster.descriptions == ("a", "b")
    np.testing.assert_array_equal(np.ma.getmaskarray(got), np.broadcast_to(~valid_HW, got.shape))
    np.testing.assert_allclose(
        got.filled(0), np.where(valid_HW, x_HWC.transpose(2, 0, 1), 0), atol=200 * atol + 1e-9
    )
    assert summary.predicted_px == valid_HW.sum()


def test_scores_beyond_the_range_never_become_nodata() -> None:
    output = Output(("a",), "scores", "uint8")
    values = output.encode(np.array([[[-5.0, 0.0, 1.0, 7.0]]], np.float32), None)
    assert values.tolist() == [[[0, 0, 254, 254]]]


@pytest.mark.parametrize("channels", [1, 2, 5, 300])
def test_the_class_is_the_first_of_the_highest_channels(channels: int) -> None:
    scores = np.random.default_rng(0).integers(0, 4, (channels, 30, 3000)).astype(np.float32)
    output = Output(tuple(map(str, range(channels))), threshold=2.0)
    truth = scores[0] > 2 if channels == 1 else scores.argmax(axis=0)
    got = output.encode(scores, None)
    assert got.dtype == (np.uint16 if channels > 255 else np.uint8)
    np.testing.assert_array_equal(got[0], truth)


@pytest.mark.parametrize("mode", ["exact", "blend"])
def test_a_tile_that_cannot_be_read_is_nodata_and_is_told(tmp_path: Path, mode: Any) -> None:
    x_HWC, bad = noise(500, 500), Window(200, 200, 4, 4)
    events: list[Event] = []
    summary = predict_raster(
        broken_at(held(x_HWC), bad), two_classes, tmp_path / "map.tif",
        TileGrid(500, 500, 128, 16, 16, mode), TWO, batch=2, events=events.append,
    )  # fmt: skip
    with rasterio.open(tmp_path / "map.tif") as raster:
        got_HW = raster.read(1)
    known = got_HW != 255
    np.testing.assert_array_equal(got_HW[known], (x_HWC[..., 0] > 100)[known])
    assert not known[200:204, 200:204].any()
    assert [failed.reason for failed in summary.failed] == ["A block is broken."]
    assert [event.message for event in events if isinstance(event, Warned)] == ["A block is broken."]
    assert summary.predicted_px == known.sum() == summary.valid_px - summary.lost_px
    assert summary.total_px - summary.valid_px == sum(failed.window.area_px for failed in summary.failed)


def test_a_raster_of_which_nothing_can_be_read_is_an_error(tmp_path: Path) -> None:
    source = broken_at(held(noise(300, 300)), Window(0, 0, 300, 300))
    with pytest.raises(UnreadableFile):
        predict_raster(source, two_classes, tmp_path / "map.tif", TileGrid(300, 300, 128, 16, 16), TWO)
    assert not list(tmp_path.iterdir())


def test_a_raster_without_a_valid_pixel_is_all_nodata(tmp_path: Path) -> None:
    source = held(noise(300, 300), np.zeros((300, 300), bool))
    summary = predict_raster(source, two_classes, tmp_path / "map.tif", TileGrid(300, 300, 128, 16, 16), TWO)
    with rasterio.open(tmp_path / "map.tif") as raster:
        assert (raster.read() == 255).all()
    assert (summary.valid_px, summary.tiles_without_data) == (0, summary.tiles)


def test_a_model_that_fails_leaves_no_file(tmp_path: Path) -> None:
    calls = []

    def fail(x_NHWC: Any, valid_NHW: Any) -> Any:
        calls.append(len(x_NHWC))
        if len(calls) == 3:
            raise RuntimeError("out of luck")
        return two_classes(x_NHWC, valid_NHW)

    grid = TileGrid(500, 500, 128, 16, 16)
    with pytest.raises(RuntimeError, match="out of luck"):
        predict_raster(held(noise(500, 500), block=(7, 500)), fail, tmp_path / "map.tif", grid, TWO)
    assert not list(tmp_path.iterdir())


def test_a_grid_for_another_raster_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        predict_raster(held(noise(30, 30)), two_classes, tmp_path / "map.tif", TileGrid(30, 31, 16, 0), TWO)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("names", [(), ("a",) * 70_000])
def test_outputs_without_meaning_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(UsageError):
        Output(names)
    with pytest.raises(UsageError):
        Output(("a",), "scores", low=1, high=1)

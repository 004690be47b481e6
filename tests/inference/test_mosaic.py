"""An output is a valid COG that lies where its input lies, or it is not there at all."""

from __future__ import annotations

import itertools
import os
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.control import GroundControlPoint
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import from_origin
from rio_cogeo.cogeo import cog_validate

from caudal.core.errors import DiskFull, UsageError
from caudal.core.geometry import Window
from caudal.inference import cog
from caudal.inference.blocks import Codec
from caudal.inference.mosaic import CogWriter, Georeference, Layout
from caudal.inference.pyramid import halve
from tests.inference.sources import noise

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

PLACE = Georeference("EPSG:32630", from_origin(500_000, 4_000_000, 0.25, 0.5))


def classes(height: int, width: int) -> Any:
    x_HW = (noise(height // 40 + 1, width // 40 + 1)[..., 0] % 5).repeat(40, 0).repeat(40, 1)[:height, :width]
    x_HW[: height // 8, : width // 8] = 255
    return np.ascontiguousarray(x_HW[None])


def layout(x_CHW: Any, overview: Any = "mode", nodata: float = 255, **more: Any) -> Layout:
    names = tuple(f"class {number}" for number in range(len(x_CHW)))
    _, height, width = x_CHW.shape
    return Layout(height, width, x_CHW.dtype, names, nodata, overview, **more)


def write(path: Path, x_CHW: Any, like: Layout, where: Georeference | None = PLACE, **more: Any) -> None:
    with CogWriter(path, like, where, **more) as writer:
        for row in range(0, like.height, 512):
            for col in range(0, like.width, 1024):
                window = Window(row, col, 512, 1024).clip(like.height, like.width)
                writer.write(window, x_CHW[(slice(None), *window.slices)])
        writer.finish()


@pytest.mark.parametrize("codec", ["deflate", "zstd"])
@pytest.mark.parametrize("shape", [(1, 1), (511, 1), (1500, 2111), (1024, 512)])
def test_a_map_of_classes_is_a_valid_cog_with_its_pixels_and_its_place(
    tmp_path: Path, shape: tuple[int, int], codec: Codec
) -> None:
    path, x_CHW = tmp_path / "map.tif", classes(*shape)
    write(path, x_CHW, layout(x_CHW, tags={"CLASSES": "a|b"}), codec=codec)
    valid, errors, warned = cog_validate(path, strict=True, quiet=True)
    assert (valid, errors, warned) == (True, [], [])
    with rasterio.open(path) as raster:
        np.testing.assert_array_equal(raster.read(), x_CHW)
        assert (raster.crs, raster.transform, raster.shape) == (PLACE.crs, PLACE.transform, shape)
        assert (raster.nodata, raster.descriptions) == (255, ("class 0",))
        assert raster.tags()["CLASSES"] == "a|b"
        assert raster.compression.name == codec
        assert bool(raster.overviews(1)) == (max(shape) > 512)
    assert list(tmp_path.iterdir()) == [path]


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 900), st.integers(1, 900), st.integers(200, 700), st.integers(200, 700), st.booleans())
def test_windows_of_any_size_in_any_order_make_the_same_file(
    height: int, width: int, tall: int, wide: int, backwards: bool
) -> None:
    x_CHW = noise(height, width, 2, np.uint16).transpose(2, 0, 1)
    like, files = layout(x_CHW, "average", 65535), []
    for rows, cols in ((512, 512), (tall, wide)):
        with tempfile.TemporaryDirectory() as folder:
            corners = list(itertools.product(range(0, height, rows), range(0, width, cols)))
            with CogWriter(Path(folder) / "a.tif", like, PLACE, threads=2) as writer:
                for row, col in reversed(corners) if backwards else corners:
                    window = Window(row, col, rows, cols).clip(height, width)
                    writer.write(window, x_CHW[(slice(None), *window.slices)])
                writer.finish()
            files.append((Path(folder) / "a.tif").read_bytes())
    assert files[0] == files[1]


@pytest.mark.parametrize("largest", [2**32 - 1, 1000])
def test_blocks_lie_as_the_header_promises_in_classic_and_in_big_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, largest: int
) -> None:
    monkeypatch.setattr(cog, "LARGEST_CLASSIC", largest)
    path, x_CHW = tmp_path / "map.tif", classes(1500, 2111)
    write(path, x_CHW, layout(x_CHW))
    raw, places = path.read_bytes(), []
    with tifffile.TiffFile(path) as file:
        assert file.is_bigtiff == (largest == 1000)
        for page in file.pages:
            blocks = list(zip(page.dataoffsets, page.databytecounts, strict=True))
            places.insert(0, blocks)
            for place, size in blocks:
                assert int.from_bytes(raw[place - 4 : place], "little") == size
                assert raw[place + size : place + size + 4] == raw[place + size - 4 : place + size]
    in_order = [block for level in places for block in level]
    ends = [place + size + 8 for place, size in in_order]
    assert [place for place, _size in in_order[1:]] == ends[:-1]
    assert ends[-1] - 4 == len(raw)
    assert cog_validate(path, strict=True, quiet=True)[0]
    with rasterio.open(path) as raster:
        np.testing.assert_array_equal(raster.read(), x_CHW)
        assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"


def test_a_pixel_that_was_never_written_is_no_file(tmp_path: Path) -> None:
    x_CHW = classes(600, 600)
    with CogWriter(tmp_path / "a.tif", layout(x_CHW)) as writer:
        writer.write(Window(0, 0, 512, 600), x_CHW[:, :512])
        with pytest.raises(AssertionError):
            writer.finish()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_scores_keep_every_band_their_scale_and_averaged_overviews(tmp_path: Path, dtype: Any) -> None:
    path = tmp_path / "scores.tif"
    x_CHW = np.linspace(0, 200, 3 * 700 * 900).reshape(3, 700, 900).astype(dtype)
    nodata = float("nan") if dtype == np.float32 else float(np.iinfo(dtype).max)
    x_CHW[:, :100, :300] = nodata
    write(path, x_CHW, layout(x_CHW, "average", nodata, scale=0.004, offset=-1.0))
    assert cog_validate(path, strict=True, quiet=True)[0]
    with rasterio.open(path) as raster:
        np.testing.assert_array_equal(raster.read(), x_CHW)
        assert raster.descriptions == ("class 0", "class 1", "class 2")
        assert (raster.scales, raster.offsets) == ((0.004,) * 3, (-1.0,) * 3)
        coarse = raster.read(1, out_shape=(350, 450), masked=True)
    assert coarse.mask[:50, :150].all()
    assert not coarse.mask[50:].any()
    np.testing.assert_allclose(coarse[60:], x_CHW[0, 120:].reshape(290, 2, 450, 2).mean((1, 3)), atol=0.51)


def test_ground_control_points_go_with_the_output(tmp_path: Path) -> None:
    points = tuple(GroundControlPoint(row, col, 10.0 + col, 50.0 - row) for row in (0, 90) for col in (0, 90))
    given = Georeference(rasterio.CRS.from_epsg(4326), None, points)
    write(tmp_path / "a.tif", x := classes(100, 100), layout(x), given)
    read = Georeference.of(tmp_path / "a.tif")
    assert read is not None
    assert read.crs == given.crs
    assert [(p.row, p.col, p.x, p.y) for p in read.gcps] == [(p.row, p.col, p.x, p.y) for p in points]


def test_a_picture_lies_nowhere(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(tmp_path / "a.png", "w", driver="PNG", width=9, height=9, count=1, dtype="uint8"):
            pass
    assert Georeference.of(tmp_path / "a.png") is None
    assert Georeference.of(tmp_path / "missing.npy") is None
    write(tmp_path / "b.tif", x := classes(20, 20), layout(x), None)
    assert Georeference.of(tmp_path / "b.tif") is None


def test_place_is_read_as_it_was_written(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", x := classes(20, 20), layout(x))
    assert Georeference.of(tmp_path / "a.tif") == PLACE


def test_what_was_there_stays_until_the_new_file_is_whole(tmp_path: Path) -> None:
    path, x_CHW = tmp_path / "map.tif", classes(600, 600)
    path.write_bytes(b"the old one")
    (tmp_path / "map.tif.part").write_bytes(b"left by a run that was killed")

    def stopped_by_hand() -> None:
        with CogWriter(path, layout(x_CHW), PLACE) as writer:
            writer.write(Window(0, 0, 512, 512), x_CHW[:, :512, :512])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped_by_hand()
    assert path.read_bytes() == b"the old one"
    assert list(tmp_path.iterdir()) == [path]


def test_gdal_gets_its_cache_back(tmp_path: Path) -> None:
    with rasterio.Env(GDAL_CACHEMAX=123 * 2**20):
        write(tmp_path / "a.tif", x := classes(600, 600), layout(x))
        from rasterio.env import getenv

        assert getenv()["GDAL_CACHEMAX"] == 123 * 2**20


def test_a_folder_that_is_not_there_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        CogWriter(tmp_path / "no" / "map.tif", layout(classes(9, 9)))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a small disk takes root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("side", [1300, 1100, 5000])
def test_a_full_disk_leaves_nothing_and_is_named(small_disk: Path, side: int) -> None:
    """5000²: full while writing; 1100² and 1300²: full while the COG is made, or on the last bytes."""
    x_CHW = noise(side, side).transpose(2, 0, 1)
    with pytest.raises(DiskFull) as caught:
        write(small_disk / "map.tif", x_CHW, layout(x_CHW))
    assert caught.value.hint
    assert not list(small_disk.iterdir())


def test_what_just_fits_is_whole(small_disk: Path) -> None:
    """Sizes around the limit: each either raises or is there with all its pixels."""
    outcomes = set()
    for side in range(800, 1300, 50):
        x_CHW, path = noise(side, side).transpose(2, 0, 1), small_disk / "map.tif"
        try:
            write(path, x_CHW, layout(x_CHW))
        except DiskFull:
            outcomes.add("full")
            assert not list(small_disk.iterdir())
        else:
            outcomes.add("whole")
            with rasterio.open(path) as raster:
                np.testing.assert_array_equal(raster.read(), x_CHW)
            path.unlink()
    assert outcomes == {"full", "whole"}


@given(st.lists(st.sampled_from([0, 1, 2, 3, 255]), min_size=4, max_size=4))
def test_the_mode_of_four_is_a_most_frequent_class(four: list[int]) -> None:
    got = int(halve(np.array(four, np.uint8).reshape(1, 2, 2), "mode", 255)[0, 0, 0])
    known = [value for value in four if value != 255]
    # A class that is as frequent as nodata may be passed over only for another class.
    best = max((four.count(value) for value in known), default=0)
    assert got == 255 if not known else got in known
    if best > 1 and best >= four.count(255):
        assert four.count(got) == best or 255 in four
    if 255 not in four:
        assert four.count(got) == best


@given(st.lists(st.sampled_from([0, 7, 9, 254, 255]), min_size=4, max_size=4))
def test_the_average_of_four_leaves_nodata_out(four: list[int]) -> None:
    got = int(halve(np.array(four, np.uint8).reshape(1, 2, 2), "average", 255)[0, 0, 0])
    known = [value for value in four if value != 255]
    assert got == (int(np.rint(np.float32(np.mean(known)))) if known else 255)

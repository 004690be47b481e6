"""What a TIFF says beside its pixels: names, nodata, alpha, which image; and what a read costs."""

from __future__ import annotations

import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import rasterio
import tifffile

from caudal.core.geometry import Window
from caudal.data.readers.geotiff import GeoTiffReader, TiffSource
from tests.data.readers.tiff_files import picture, windows, write_gdal

READER = GeoTiffReader()


def test_band_names_come_in_the_order_of_the_bands(tmp_path: Path) -> None:
    path = write_gdal(tmp_path / "x.tif", picture(20, 20, 3, "uint8"))
    assert READER.header(path).band_names == ()
    with rasterio.open(path, "r+") as dataset:
        dataset.set_band_description(3, "near <infra> & red")
        dataset.set_band_description(1, "B02")
    assert READER.header(path).band_names == ("B02", "", "near <infra> & red")


@pytest.mark.parametrize(
    ("dtype", "nodata"),
    [("uint8", 0), ("int16", -9999), ("float32", -3.4028234663852886e38), ("float64", 1e300)],
)
def test_pixels_whose_bands_all_are_nodata_are_not_valid(tmp_path: Path, dtype: str, nodata: float) -> None:
    x_HWC = np.ones((20, 20, 2), dtype)
    x_HWC[2, 3] = nodata
    x_HWC[4, 5, 0] = nodata
    path = write_gdal(tmp_path / "x.tif", x_HWC, nodata=nodata)
    with READER.open(path) as source:
        assert source.header.nodata == nodata
        valid_HW = source.read(Window(0, 0, 20, 20)).valid_HW
        assert valid_HW is not None
        assert np.argwhere(~valid_HW).tolist() == [[2, 3]]
        assert source.read(Window(10, 10, 5, 5)).valid_HW is None


def test_nodata_that_the_type_cannot_hold_is_no_nodata(tmp_path: Path) -> None:
    for text in ("-9999", "0.5", "nan", "none"):
        path = tmp_path / "x.tif"
        tag = (42113, 2, 0, text, True)
        tifffile.imwrite(path, picture(8, 8, 1, "uint8")[:, :, 0], extratags=[tag])
        assert READER.header(path).nodata is None


def test_a_band_that_is_nan_makes_the_pixel_invalid(tmp_path: Path) -> None:
    x_HWC = np.ones((20, 20, 2), np.float32)
    x_HWC[1, 2, 1] = np.nan
    with READER.open(write_gdal(tmp_path / "x.tif", x_HWC, nodata=np.nan)) as source:
        valid_HW = source.read(source.header.window).valid_HW
    assert valid_HW is not None
    assert np.argwhere(~valid_HW).tolist() == [[1, 2]]


@pytest.mark.parametrize("interleave", ["pixel", "band"])
@pytest.mark.parametrize("compress", ["none", "deflate", "lzma"])
def test_alpha_says_what_is_valid_and_is_no_band(tmp_path: Path, interleave: str, compress: str) -> None:
    x_HWC = picture(40, 40, 4, "uint8")
    x_HWC[:, :, 3] = 255
    x_HWC[7, 9, 3] = 0
    path = write_gdal(tmp_path / "x.tif", x_HWC, interleave=interleave, compress=compress, photometric="rgb",
                      ALPHA="YES")  # fmt: skip
    with READER.open(path) as source:
        assert source.header.has_alpha
        assert source.header.bands == 3
        pixels = source.read(Window(5, 5, 20, 20))
        np.testing.assert_array_equal(pixels.x_HWC, x_HWC[5:25, 5:25, :3])
        assert pixels.valid_HW is not None
        assert np.argwhere(~pixels.valid_HW).tolist() == [[2, 4]]


def test_a_thumbnail_before_the_image_is_passed_over(tmp_path: Path) -> None:
    x_HWC = picture(64, 48, 3, "uint8")
    path = tmp_path / "x.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(x_HWC[::4, ::4].copy(), photometric="rgb", subfiletype=1)
        writer.write(x_HWC, photometric="rgb")
    with READER.open(path) as source:
        np.testing.assert_array_equal(source.read(source.header.window).x_HWC, x_HWC)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"nodata": 3},
        {"compress": "lzw", "predictor": 2},
        {"compress": "deflate", "tiled": True},
        {"compress": "deflate", "predictor": 2, "ENDIANNESS": "BIG"},
        {"compress": "zstd", "tiled": True, "ENDIANNESS": "BIG"},
        {"compress": "deflate", "tiled": True, "predictor": 3, "dtype": "float32"},
        {"compress": "jpeg", "tiled": True, "photometric": "minisblack", "dtype": "uint8"},
        {"compress": "lerc_zstd", "tiled": True},
        {"compress": "lerc", "tiled": True, "ALPHA": "YES", "dtype": "uint8"},
        {"compress": "webp", "tiled": True, "dtype": "uint8"},
    ],
)
@pytest.mark.parametrize("interleave", ["pixel", "band"])
def test_a_read_holds_no_more_than_its_scratch_bytes(
    tmp_path: Path, options: dict[str, object], interleave: str
) -> None:
    if options.get("compress") == "webp":
        interleave = "pixel"  # WebP has three or four samples in a block
    x_HWC = picture(600, 900, 4, str(options.get("dtype", "uint16")))
    options = {name: value for name, value in options.items() if name != "dtype"}
    with READER.open(write_gdal(tmp_path / "x.tif", x_HWC, interleave=interleave, **options)) as source:
        assert isinstance(source, TiffSource)
        for window in windows(600, 900, 4, seed=5):
            source.read(window)
            tracemalloc.start()
            pixels = source.read(window)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert peak - pixels.x_HWC.nbytes <= source.scratch_bytes(window) + 32 * 1024


@pytest.mark.parametrize(
    "options",
    [
        {"compress": "lzw"},
        {"compress": "none"},
        {"compress": "jpeg", "tiled": True},
        {"compress": "jpeg", "tiled": True, "photometric": "ycbcr"},
        {"compress": "lerc", "tiled": True},
    ],
)
def test_eight_threads_on_one_source_read_what_one_reads(tmp_path: Path, options: dict[str, object]) -> None:
    path = write_gdal(tmp_path / "x.tif", picture(300, 400, 3, "uint8"), interleave="pixel", **options)
    with READER.open(path) as source:
        wanted = windows(300, 400, 60, seed=9)
        serial = [source.read(window).x_HWC for window in wanted]
        with ThreadPoolExecutor(8) as pool:
            for alone, together in zip(serial, pool.map(source.read, wanted), strict=True):
                np.testing.assert_array_equal(alone, together.x_HWC)

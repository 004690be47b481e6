"""The native TIFF path gives GDAL's pixels, bit for bit, for every layout that it covers.

See `test_tiff_codecs.py` for any shape, and for codecs whose blocks are pictures.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import rasterio
import tifffile

from caudal.core.geometry import Window
from caudal.data.readers.geotiff import GeoTiffReader, TiffSource
from tests.data.readers.tiff_files import (
    block_tags,
    patch_tag,
    picture,
    read_gdal,
    tag_values,
    windows,
    write_gdal,
)

READER = GeoTiffReader()
INTEGERS = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64")
FLOATS = ("float32", "float64")
CASES = [
    (codec, predictor, layout, interleave)
    for codec, predictor, layout, interleave in product(
        ("none", "deflate", "lzw", "zstd", "packbits"),
        (1, 2, 3),
        ("tiles", "strips", "rows"),
        ("pixel", "band"),
    )
    if predictor == 1 or codec in ("deflate", "lzw", "zstd")
]
LAYOUTS = {
    "tiles": {"tiled": True, "blockxsize": 32, "blockysize": 16},
    "strips": {"blockysize": 13},
    "rows": {"blockysize": 1},
}


def assert_same(path: Path, count: int = 3, *, native: bool = True) -> None:
    with READER.open(path) as source:
        header = source.header
        assert isinstance(source, TiffSource) == native
        assert READER.header(path) == header
        for window in windows(header.height, header.width, count, seed=len(path.name)):
            x_HWC = source.read(window).x_HWC
            assert x_HWC.dtype == header.dtype
            assert x_HWC.flags.c_contiguous
            np.testing.assert_array_equal(x_HWC, read_gdal(path, window)[:, :, : header.bands])


@pytest.mark.parametrize(("codec", "predictor", "layout", "interleave"), CASES)
def test_every_codec_predictor_and_layout_equals_gdal(
    tmp_path: Path, codec: str, predictor: int, layout: str, interleave: str
) -> None:
    kinds = FLOATS if predictor == 3 else INTEGERS + FLOATS
    for number, dtype in enumerate(kinds):
        x_HWC = picture(45, 70, 3, dtype)
        options = {
            **LAYOUTS[layout],
            "interleave": interleave,
            "compress": codec,
            "photometric": "minisblack",
        }
        options |= {"predictor": predictor} if predictor > 1 else {}
        options |= {"ENDIANNESS": ("LITTLE", "BIG")[number % 2], "BIGTIFF": ("NO", "YES")[number // 2 % 2]}
        path = write_gdal(tmp_path / f"{dtype}.tif", x_HWC, **options)
        assert_same(path)


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("compression", [None, "adobe_deflate", "lzw", "deflate"])
def test_tifffile_files_of_either_byte_order_equal_what_was_written(
    tmp_path: Path, byteorder: str, big: bool, dtype: str, compression: str | None
) -> None:
    x_HWC = picture(50, 41, 4, dtype)
    path = tmp_path / "x.tif"
    tifffile.imwrite(
        path, x_HWC, photometric="minisblack", planarconfig="contig", compression=compression,
        byteorder=byteorder, bigtiff=big, rowsperstrip=7,
    )  # fmt: skip
    with READER.open(path) as source:
        assert isinstance(source, TiffSource)
        np.testing.assert_array_equal(source.read(source.header.window).x_HWC, x_HWC)


@pytest.mark.parametrize("compression", ["zlib", "lzw", "zstd"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_half_floats_stay_half_floats(tmp_path: Path, compression: str, byteorder: str) -> None:
    x_HWC = picture(40, 40, 3, "float16")
    for predictor in (None, 3):
        path = tmp_path / f"{predictor}.tif"
        tifffile.imwrite(
            path, x_HWC, photometric="minisblack", planarconfig="contig", compression=compression,
            predictor=predictor, tile=(16, 16), byteorder=byteorder,
        )  # fmt: skip
        with READER.open(path) as source:
            np.testing.assert_array_equal(source.read(source.header.window).x_HWC, x_HWC)


@pytest.mark.parametrize(
    "options",
    [{"nbits": 1}, {"nbits": 5}, {"compress": "lzma"}, {"photometric": "cielab"}],
)
def test_what_the_native_path_lacks_is_read_through_gdal(tmp_path: Path, options: dict[str, object]) -> None:
    x_HWC = picture(40, 50, 3, "uint8") % 2
    assert_same(write_gdal(tmp_path / "x.tif", x_HWC, **options), native=False)


def test_blocks_that_were_never_written_are_nodata_or_zero(tmp_path: Path) -> None:
    for nodata in (None, 7):
        path = tmp_path / f"{nodata}.tif"
        profile = {
            "driver": "GTiff",
            "height": 64,
            "width": 64,
            "count": 2,
            "dtype": "uint8",
            "nodata": nodata,
        }
        with rasterio.open(
            path, "w", **profile, tiled=True, blockxsize=16, blockysize=16, compress="lzw", SPARSE_OK="TRUE"
        ) as dataset:
            dataset.write(np.full((2, 16, 16), 3, np.uint8), window=((16, 32), (32, 48)))
        assert_same(path)
        with READER.open(path) as source:
            pixels = source.read(Window(0, 0, 64, 64))
        assert set(np.unique(pixels.x_HWC)) == {3, nodata or 0}
        if nodata is None:
            assert pixels.valid_HW is None
        else:
            assert pixels.valid_HW is not None
            assert int(pixels.valid_HW.sum()) == 16 * 16


def test_uncompressed_strips_out_of_order_are_found(tmp_path: Path) -> None:
    x_HWC = picture(48, 3000, 4, "uint16")
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, x_HWC, photometric="minisblack", planarconfig="contig", rowsperstrip=24)
    offsets = block_tags(path)[0]
    first, second = tag_values(path, offsets)
    raw = bytearray(path.read_bytes())
    size = second - first
    raw[first:second], raw[second : second + size] = raw[second : second + size], raw[first:second]
    path.write_bytes(raw)
    patch_tag(path, offsets, [second, first])
    with READER.open(path) as source:
        assert source.header.block[0] < 24, "a large uncompressed strip is cut to pieces"
        for window in windows(48, 3000, 6, seed=1):
            np.testing.assert_array_equal(source.read(window).x_HWC, x_HWC[window.slices])


def test_an_uncompressed_image_in_one_strip_is_not_read_whole(tmp_path: Path) -> None:
    x_HW = picture(2000, 1500, 1, "uint16")[:, :, 0]
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, x_HW)
    with READER.open(path) as source:
        window = Window(700, 20, 64, 64)
        assert source.scratch_bytes(window) < 2**20
        np.testing.assert_array_equal(source.read(window).x_HWC[:, :, 0], x_HW[window.slices])


@pytest.mark.data
def test_real_rasters_equal_gdal(data_dir: Path) -> None:
    paths = sorted((data_dir / "raster").rglob("*.tif"))
    assert paths
    for path in paths:
        with READER.open(path) as source:
            header = source.header
            size = (min(header.height, 1400), min(header.width, 1400))
            for window in windows(*size, 3, seed=3)[1:]:
                expected = read_gdal(path, window)[:, :, : header.bands]
                np.testing.assert_array_equal(source.read(window).x_HWC, expected)
            with rasterio.open(path) as dataset:
                names = tuple(name or "" for name in dataset.descriptions[: header.bands])
                assert header.band_names == (names if any(names) else ())
                assert header.nodata == dataset.nodata


@pytest.mark.data
def test_real_scenes_equal_gdal(data_dir: Path) -> None:
    paths = sorted((data_dir / "seg_wildfire_s2").rglob("*.tif"))
    assert paths
    for path in paths:
        assert_same(path, 2)

"""Every codec in every layout, of any shape: the native path gives GDAL's pixels, bit for bit.

Files are written by GDAL, and by tifffile with imagecodecs: their streams differ in what formats leave open.
"""

from __future__ import annotations

import hashlib
import io
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from rasterio.errors import RasterioIOError

from caudal.core.errors import UnreadableFile
from caudal.data.readers.base import Array
from caudal.data.readers.geotiff import GeoTiffReader, TiffSource
from caudal.data.readers.tiff_jpeg import decode_jpeg
from caudal.data.readers.tiff_lerc import decode_lerc
from tests.data.readers.tiff_files import patch_tag, picture, read_gdal, windows, write_gdal

READER = GeoTiffReader()
INTEGERS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")
FLOATS = ("float32", "float64")
SIDES = st.one_of(st.sampled_from([1, 2, 15, 16, 17, 63, 65]), st.integers(1, 80))
TILED = {"tiled": True, "blockxsize": 32, "blockysize": 32}
TILES = st.sampled_from([(16, 16), (32, 16), (16, 48), (64, 64)])


@st.composite
def layouts(draw: st.DrawFn, height: int) -> dict[str, Any]:
    """Options of GDAL's driver: how the blocks lie and in which order the bytes do."""
    options: dict[str, Any] = {
        "interleave": draw(st.sampled_from(["pixel", "band"])),
        "ENDIANNESS": draw(st.sampled_from(["LITTLE", "BIG"])),
        "BIGTIFF": draw(st.sampled_from(["NO", "YES"])),
    }
    if draw(st.booleans()):
        across, down = draw(TILES)
        return options | {"tiled": True, "blockxsize": across, "blockysize": down}
    return options | {"blockysize": draw(st.integers(1, height))}


def bits(x: Array) -> Array:
    """The bits of floats, as NaNs are equal to nothing."""
    return x.view(f"u{x.dtype.itemsize}") if x.dtype.kind == "f" else x


def assert_equals_gdal(path: Path, *, native: bool = True) -> Array:
    """Every window is GDAL's; returns the whole image with its alpha, as GDAL has it."""
    whole = read_gdal(path)
    with READER.open(path) as source:
        header = source.header
        assert isinstance(source, TiffSource) == native
        assert header.dtype == whole.dtype
        for window in windows(header.height, header.width, 2, seed=whole.size):
            pixels = source.read(window)
            expected = whole[window.slices]
            np.testing.assert_array_equal(bits(pixels.x_HWC), bits(expected[:, :, : header.bands]))
            if header.has_alpha:
                valid_HW = (expected[:, :, -1] != 0) & (expected == expected)[:, :, :-1].all(axis=2)
                found_HW = np.ones_like(valid_HW) if pixels.valid_HW is None else pixels.valid_HW
                np.testing.assert_array_equal(found_HW, valid_HW)
    return whole


@given(data=st.data(), height=SIDES, width=SIDES, bands=st.integers(1, 5))
@settings(max_examples=150, deadline=None)
def test_lossless_codecs_of_any_type_shape_and_layout(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, height: int, width: int, bands: int
) -> None:
    codec = data.draw(st.sampled_from(["none", "deflate", "lzw", "zstd", "packbits"]))
    dtype = data.draw(st.sampled_from(INTEGERS + FLOATS))
    predictor = data.draw(st.sampled_from([1, 2, 3] if dtype in FLOATS else [1, 2]))
    options = data.draw(layouts(height)) | {"compress": codec, "photometric": "minisblack"}
    if codec in ("deflate", "lzw", "zstd"):
        options["predictor"] = predictor
    x_HWC = picture(height, width, bands, dtype, seed=height * width)
    path = write_gdal(tmp_path_factory.mktemp("any") / "x.tif", x_HWC, **options)
    np.testing.assert_array_equal(bits(assert_equals_gdal(path)), bits(x_HWC))


@given(data=st.data(), height=SIDES, width=SIDES, bands=st.sampled_from([1, 3, 4]))
@settings(max_examples=60, deadline=None)
def test_what_tifffile_writes_of_any_type_shape_and_layout(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, height: int, width: int, bands: int
) -> None:
    codec = data.draw(st.sampled_from([None, "deflate", "lzw", "zstd", "packbits"]))
    dtype = data.draw(st.sampled_from(INTEGERS + FLOATS))
    byteorder, bigtiff = data.draw(st.sampled_from("<>")), data.draw(st.booleans())
    predictor = data.draw(st.sampled_from([None, 2, 3] if dtype in FLOATS else [None, 2]))
    if codec in (None, "packbits"):
        predictor = None
    if predictor == 2 and dtype in FLOATS:
        predictor = None  # tifffile has no differences of floats
    tile = data.draw(st.one_of(st.none(), TILES))
    rows = None if tile else data.draw(st.integers(1, height))
    x_HWC = picture(height, width, bands, dtype, seed=height * width)
    path = tmp_path_factory.mktemp("any") / "x.tif"
    tifffile.imwrite(
        path, x_HWC if bands > 1 else x_HWC[:, :, 0], photometric="minisblack", compression=codec,
        planarconfig="contig" if bands > 1 else None, predictor=predictor, byteorder=byteorder,
        bigtiff=bigtiff, tile=tile, rowsperstrip=rows,
    )  # fmt: skip
    np.testing.assert_array_equal(bits(assert_equals_gdal(path)), bits(x_HWC))


@given(
    data=st.data(), height=SIDES, width=SIDES, bands=st.sampled_from([1, 3, 4]), quality=st.integers(1, 100)
)
@settings(max_examples=100, deadline=None)
def test_grey_and_rgb_jpeg_of_any_shape_and_layout(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, height: int, width: int, bands: int,
    quality: int,
) -> None:  # fmt: skip
    options = data.draw(layouts(height)) | {
        "compress": "jpeg",
        "photometric": data.draw(st.sampled_from(["minisblack", "rgb"])) if bands >= 3 else "minisblack",
        "JPEG_QUALITY": quality,
        "JPEGTABLESMODE": data.draw(st.sampled_from([0, 1, 2, 3])),
    }
    if "tiled" not in options:
        options["blockysize"] = min(height, 8 * (1 + options["blockysize"] // 8))
    path = tmp_path_factory.mktemp("jpeg") / "x.tif"
    assert_equals_gdal(write_gdal(path, picture(height, width, bands, "uint8", seed=quality), **options))
    assert READER.header(path).codec == "jpeg"


@given(
    height=SIDES,
    width=SIDES,
    quality=st.integers(1, 100),
    tile=st.one_of(st.none(), TILES),
    big=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_rgb_jpeg_that_marks_itself_otherwise_is_read_as_its_tags_say(
    tmp_path_factory: pytest.TempPathFactory, height: int, width: int, quality: int,
    tile: tuple[int, int] | None, big: bool,
) -> None:  # fmt: skip
    """imagecodecs writes every block with a JFIF marker, which by itself means YCbCr."""
    path = tmp_path_factory.mktemp("jpeg") / "x.tif"
    x_HWC = picture(height, width, 3, "uint8", seed=quality)
    down, across = tile or (height, width)
    blocks = []
    for top in range(0, height, down):
        for left in range(0, width, across):
            block = np.zeros((down, across, 3), np.uint8)
            part = x_HWC[top : top + down, left : left + across]
            block[: part.shape[0], : part.shape[1]] = part
            rgb_as_it_is = {"colorspace": "YCBCR", "outcolorspace": "YCBCR", "subsampling": "444"}
            blocks.append(imagecodecs.jpeg8_encode(block, level=quality, **rgb_as_it_is))
    tifffile.imwrite(
        path, iter(blocks), shape=x_HWC.shape, dtype="uint8", compression="jpeg", photometric="rgb",
        tile=tile, rowsperstrip=None if tile else height, bigtiff=big,
    )  # fmt: skip
    patch_tag(path, 262, [2])  # tifffile writes YCbCr
    assert b"JFIF" in path.read_bytes()
    assert_equals_gdal(path)


@pytest.mark.parametrize(
    ("bands", "options"),
    [(3, {"photometric": "ycbcr"} | TILED), (3, {"photometric": "ycbcr", "blockysize": 16}), (2, TILED)],
)
def test_jpeg_that_libjpeg_and_turbo_decode_differently_or_not_at_all_is_left_to_gdal(
    tmp_path: Path, bands: int, options: dict[str, Any]
) -> None:
    x_HWC = picture(100, 90, bands, "uint8")
    path = write_gdal(tmp_path / "x.tif", x_HWC, compress="jpeg", interleave="pixel", **options)
    assert_equals_gdal(path, native=False)
    assert READER.header(path).codec == "jpeg"


def test_progressive_jpeg_is_left_to_gdal(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.fromarray(picture(48, 64, 1, "uint8")[:, :, 0]).save(stream, "jpeg", progressive=True)
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, iter([stream.getvalue()]), shape=(48, 64), dtype="uint8", compression="jpeg",
                     photometric="minisblack", tile=(48, 64))  # fmt: skip
    assert_equals_gdal(path, native=False)


def test_a_last_jpeg_strip_as_high_as_the_others_is_cut(tmp_path: Path) -> None:
    x_HWC = picture(48, 40, 1, "uint8")
    strips = [imagecodecs.jpeg8_encode(x_HWC[top : top + 32, :, 0], level=90) for top in (0, 16)]
    path = tmp_path / "x.tif"
    tifffile.imwrite(
        path, iter(strips), shape=(48, 40), dtype="uint8", compression="jpeg", photometric="minisblack",
        rowsperstrip=32,
    )  # fmt: skip
    assert_equals_gdal(path)


@given(data=st.data(), height=SIDES, width=SIDES, bands=st.integers(1, 4))
@settings(max_examples=100, deadline=None)
def test_lerc_of_any_type_shape_layout_and_packing(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, height: int, width: int, bands: int
) -> None:
    dtype = data.draw(
        st.sampled_from([kind for kind in INTEGERS + FLOATS if kind not in ("uint64", "int64")])
    )
    options = data.draw(layouts(height)) | {
        "compress": data.draw(st.sampled_from(["LERC", "LERC_DEFLATE", "LERC_ZSTD"])),
        "MAX_Z_ERROR": data.draw(st.sampled_from([0, 0.01, 3])),
        "photometric": "minisblack",
        "ALPHA": data.draw(st.sampled_from(["YES", "NO"])) if bands > 1 else "NO",
    }
    x_HWC = picture(height, width, bands, dtype, seed=height * width)
    draw = np.random.default_rng(height + width)
    holes = data.draw(st.sampled_from(["none", "some", "of some bands", "all"]))
    if dtype in FLOATS and holes != "none":
        shape = x_HWC.shape if holes == "of some bands" else x_HWC.shape[:2]
        x_HWC[draw.random(shape) < (1.1 if holes == "all" else 0.2)] = np.nan
    if options["ALPHA"] == "YES" and holes != "none":
        x_HWC[:, :, -1] = np.where(draw.random((height, width)) < 0.3, 0, 120 if holes == "some" else 255)
    try:
        path = write_gdal(tmp_path_factory.mktemp("lerc") / "x.tif", x_HWC, **options)
    except RasterioIOError:  # there are holes that GDAL's own encoder cannot write
        assume(False)
    assert_equals_gdal(path, native=options["ENDIANNESS"] == "LITTLE" or x_HWC.itemsize == 1)
    assert READER.header(path).codec == str(options["compress"]).lower()


def test_a_lerc_mask_on_whole_numbers_is_refused_as_gdal_does(tmp_path: Path) -> None:
    valid_HW = np.ones((32, 32), bool)
    valid_HW[4:9, 5:9] = False
    path = write_gdal(tmp_path / "x.tif", picture(32, 32, 1, "int16"), compress="lerc", tiled=True,
                      blockxsize=32, blockysize=32)  # fmt: skip
    with tifffile.TiffFile(path) as file:
        start, room = file.pages[0].dataoffsets[0], file.pages[0].databytecounts[0]
    block = imagecodecs.lerc_encode(np.zeros((32, 32), np.int16), masks=valid_HW, level=0, version=4)
    assert len(block) <= room
    raw = bytearray(path.read_bytes())
    raw[start : start + len(block)] = block
    path.write_bytes(raw)
    with READER.open(path) as source:
        assert isinstance(source, TiffSource)
        with pytest.raises(UnreadableFile, match="without a value"):
            source.read(source.header.window)


@given(data=st.data(), height=SIDES, width=SIDES, bands=st.sampled_from([3, 4]))
@settings(max_examples=40, deadline=None)
def test_webp_of_any_shape(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, height: int, width: int, bands: int
) -> None:
    options = data.draw(layouts(height)) | {"interleave": "pixel", "compress": "webp", "photometric": "rgb"}
    options |= {"WEBP_LOSSLESS": data.draw(st.sampled_from(["YES", "NO"])), "WEBP_LEVEL": 60}
    options["ALPHA"] = data.draw(st.sampled_from(["YES", "NO"])) if bands == 4 else "NO"
    x_HWC = picture(height, width, bands, "uint8", seed=height)
    assert_equals_gdal(write_gdal(tmp_path_factory.mktemp("webp") / "x.tif", x_HWC, **options))


def lets_others_run(work: Callable[[], object]) -> bool:
    """Whether another thread got on during a call of `work`; nothing else makes this one give way."""
    turns, done = [0], threading.Event()

    def turn() -> None:
        while not done.is_set():
            hashlib.sha256(bytes(4096)).digest()  # gives way itself
            turns[0] += 1

    other = threading.Thread(target=turn)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    try:
        other.start()
        for _ in range(300):  # on a busy machine the other one may be late
            before = turns[0]
            work()
            if turns[0] > before:
                return True
        return False
    finally:
        done.set()
        sys.setswitchinterval(interval)
        other.join()


def test_every_decoder_lets_other_threads_run(tmp_path: Path) -> None:
    x_HWC = picture(512, 512, 3, "uint8")
    jpeg = imagecodecs.jpeg8_encode(x_HWC, level=95, colorspace="RGB", outcolorspace="RGB", subsampling="444")
    lerc = bytes(imagecodecs.lerc_encode(x_HWC, level=0, version=4))
    zipped, webp = imagecodecs.zlib_encode(x_HWC), imagecodecs.webp_encode(x_HWC, lossless=True)
    tiff = write_gdal(tmp_path / "x.tif", x_HWC, compress="lzw").read_bytes()
    decoders: dict[str, Callable[[], object]] = {
        "jpeg": lambda: decode_jpeg(jpeg, b"", x_HWC.shape, 512),
        "lerc": lambda: decode_lerc(lerc, 0, x_HWC.shape, x_HWC.dtype, False),
        "webp": lambda: imagecodecs.webp_decode(webp),
        "deflate": lambda: imagecodecs.deflate_decode(zipped, out=x_HWC.nbytes),
        "libtiff": lambda: imagecodecs.tiff_decode(tiff),
        "predictor": lambda: imagecodecs.delta_decode(x_HWC, axis=-2),
    }
    assert not lets_others_run(lambda: sum(range(100_000))), "what holds the lock is seen to hold it"
    assert [name for name, decoder in decoders.items() if not lets_others_run(decoder)] == []

"""PNG, JPEG, BMP and WebP give Pillow's pixels in the bands that the reader promises."""

from __future__ import annotations

import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from PIL import Image, ImageOps

from caudal.core.errors import UnreadableFile
from caudal.core.geometry import Window
from caudal.data.readers.base import Array, Pixels
from caudal.data.readers.images import ImageReader
from tests.data.readers.tiff_files import picture, windows

READER = ImageReader()


def read(path: Path, window: Window | None = None) -> Pixels:
    with READER.open(path) as source:
        header = source.header
        assert header == READER.header(path)
        assert header.block == (header.height, header.width)
        pixels = source.read(window or header.window)
        assert pixels.x_HWC.dtype == header.dtype
        assert pixels.x_HWC.flags.c_contiguous
        return pixels


def save(path: Path, x: Array, mode: str | None = None, **options: Any) -> Path:
    image = Image.fromarray(x)
    (image if mode is None else image.convert(mode)).save(path, **options)
    return path


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".webp", ".jpg", ".jpeg"])
@pytest.mark.parametrize("bands", [1, 3])
def test_pixels_equal_pillow(tmp_path: Path, suffix: str, bands: int) -> None:
    x = picture(51, 37, 3, "uint8")
    options = {"lossless": True} if suffix == ".webp" else {}
    path = save(tmp_path / f"x{suffix}", x[:, :, 0] if bands == 1 else x, **options)
    with Image.open(path) as image:
        expected = np.asarray(image).reshape(51, 37, -1)
    for window in windows(51, 37, 5, seed=2):
        np.testing.assert_array_equal(read(path, window).x_HWC, expected[window.slices])


def test_alpha_is_no_band_and_zero_is_not_valid(tmp_path: Path) -> None:
    x = picture(30, 40, 4, "uint8")
    x[:, :, 3] = 255
    x[3, 4, 3] = 0
    for suffix, options in ((".png", {}), (".webp", {"lossless": True, "exact": True})):
        path = save(tmp_path / f"x{suffix}", x, **options)
        assert READER.header(path).has_alpha
        pixels = read(path)
        np.testing.assert_array_equal(pixels.x_HWC, x[:, :, :3])
        assert pixels.valid_HW is not None
        assert np.argwhere(~pixels.valid_HW).tolist() == [[3, 4]]
        assert read(path, Window(5, 5, 9, 9)).valid_HW is None
    grey = read(save(tmp_path / "la.png", x, "LA"))
    assert grey.x_HWC.shape == (30, 40, 1)
    assert grey.valid_HW is not None


@pytest.mark.parametrize("bands", [1, 2, 3, 4])
def test_sixteen_bits_stay_sixteen(tmp_path: Path, bands: int) -> None:
    x = picture(20, 30, bands, "uint16")
    x[:, :, -1] = np.maximum(x[:, :, -1], 1)
    path = tmp_path / "x.png"
    path.write_bytes(imagecodecs.png_encode(x if bands > 1 else x[:, :, 0]))
    header = READER.header(path)
    assert (header.bands, header.has_alpha, header.dtype) == (
        3 if bands > 2 else 1,
        bands % 2 == 0,
        np.uint16,
    )
    np.testing.assert_array_equal(read(path).x_HWC, x[:, :, : header.bands])


def test_a_palette_is_read_as_its_index(tmp_path: Path) -> None:
    index = (picture(20, 30, 1, "uint8")[:, :, 0] % 5).astype(np.uint8)
    image = Image.fromarray(index, "L")
    image = image.convert("P")
    image.putdata(index.ravel().tolist())
    image.putpalette([200, 10, 10, 0, 90, 0, 3, 3, 250, 9, 9, 9, 77, 0, 1])
    image.save(tmp_path / "x.png")
    header = READER.header(tmp_path / "x.png")
    assert (header.bands, header.has_alpha) == (1, False)
    np.testing.assert_array_equal(read(tmp_path / "x.png").x_HWC[:, :, 0], index)


def test_black_and_white_is_one_and_zero(tmp_path: Path) -> None:
    x = picture(20, 30, 1, "uint8")[:, :, 0] > 60
    for suffix in (".png", ".bmp"):
        path = save(tmp_path / f"x{suffix}", x)
        np.testing.assert_array_equal(read(path).x_HWC[:, :, 0], x.astype(np.uint8))


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    path = save(tmp_path / "x.jpg", picture(40, 40, 3, "uint8"), "CMYK")
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(read(path).x_HWC, expected)


@pytest.mark.parametrize("orientation", range(10))
def test_a_jpeg_stands_upright_and_its_header_agrees(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "x.jpg", picture(24, 40, 3, "uint8"), exif=exif.tobytes())
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    header = READER.header(path)
    assert (header.height, header.width) == expected.shape[:2]
    for window in windows(header.height, header.width, 3, seed=orientation):
        np.testing.assert_array_equal(read(path, window).x_HWC, expected[window.slices])


def test_the_first_bytes_decide_not_the_suffix(tmp_path: Path) -> None:
    x = picture(20, 20, 3, "uint8")
    save(tmp_path / "x.png", x).rename(tmp_path / "x.jpg")
    assert READER.header(tmp_path / "x.jpg").codec == "png"
    np.testing.assert_array_equal(read(tmp_path / "x.jpg").x_HWC, x)


def test_a_crop_does_not_keep_the_image_alive(tmp_path: Path) -> None:
    for suffix in (".png", ".jpg"):
        x_HWC = read(save(tmp_path / f"x{suffix}", picture(200, 200, 3, "uint8")), Window(3, 3, 5, 5)).x_HWC
        assert x_HWC.base is None


def test_eight_threads_read_what_one_reads(tmp_path: Path) -> None:
    for suffix in (".png", ".jpg"):
        with READER.open(save(tmp_path / f"x{suffix}", picture(120, 160, 3, "uint8"))) as source:
            wanted = windows(120, 160, 40, seed=4)
            serial = [source.read(window).x_HWC for window in wanted]
            with ThreadPoolExecutor(8) as pool:
                for alone, together in zip(serial, pool.map(source.read, wanted), strict=True):
                    np.testing.assert_array_equal(alone, together.x_HWC)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp"])
def test_a_truncated_image_is_refused(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"x{suffix}", picture(60, 60, 3, "uint8"))
    whole = path.read_bytes()
    for keep in (1, 4, 20, 30, len(whole) // 2, len(whole) * 9 // 10):
        path.write_bytes(whole[:keep])
        with pytest.raises(UnreadableFile) as caught:
            read(path)
        assert str(path) in caught.value.message
        assert caught.value.hint


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("x,y\n1,2\n")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "folder.bmp").mkdir()
    for name in ("text.png", "empty.jpg", "folder.bmp", "none.webp"):
        with pytest.raises(UnreadableFile):
            READER.header(tmp_path / name)


@pytest.mark.parametrize("side", [40_000, 1_000_000])
def test_an_image_that_claims_more_than_its_bytes_can_hold_is_refused(tmp_path: Path, side: int) -> None:
    ihdr = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = b"IDAT" + zlib.compress(bytes(1000))
    chunks = b"".join(
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (ihdr, body, b"IEND")
    )
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    with pytest.raises(UnreadableFile, match="pixels"):
        READER.header(tmp_path / "x.png")


def test_a_large_image_reads_without_a_warning(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    Image.new("L", (10_000, 9_500)).save(tmp_path / "x.png", compress_level=1)
    assert READER.header(tmp_path / "x.png").height == 9_500
    assert not recwarn.list


@pytest.mark.data
def test_real_images_equal_pillow(data_dir: Path) -> None:
    paths = (
        sorted((data_dir / "seg_nuclei").rglob("*.png"))[::9]
        + sorted((data_dir / "lesion").rglob("*.jpg"))[::19]
    )
    assert len(paths) > 20
    for path in paths:
        with Image.open(path) as image:
            expected = np.asarray(image if path.suffix == ".png" else ImageOps.exif_transpose(image))
        x_HWC = read(path).x_HWC
        expected = expected.reshape(*expected.shape[:2], -1)
        np.testing.assert_array_equal(x_HWC, expected[:, :, : x_HWC.shape[2]])

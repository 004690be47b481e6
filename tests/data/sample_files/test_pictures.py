"""A photograph is one sample: the decoder's own pixels, upright, in RGB, resized as was asked."""

from __future__ import annotations

import ctypes
import io
import struct
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import imagecodecs
import numpy as np
import pytest
import simplejpeg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from caudal.core.errors import UnreadableFile, UsageError
from caudal.data.byte_file import LocalFile
from caudal.data.readers.images import ImageReader
from caudal.data.sample_files import SAMPLE_READERS
from caudal.data.sample_files.base import Array, Part
from caudal.data.sample_files.pictures import PictureReader
from caudal.memory.meters import PeakMeter, charged_bytes

READER = PictureReader()
SUBSAMPLINGS = ("444", "422", "420", "440", "411")


def photo(height: int, width: int, seed: int = 0) -> Array:
    """Blurred blobs with a little grain: x_HWC, RGB."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (height // 12 + 2, width // 12 + 2, 3), np.uint8)
    grain = random.integers(0, 9, (height, width, 3), np.uint8)
    return cv2.add(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), grain)


def encoded(x: Array, kind: str, mode: str | None = None, **options: Any) -> bytes:
    image, stream = Image.fromarray(x), io.BytesIO()
    (image if mode is None else image.convert(mode)).save(stream, kind, **options)
    return stream.getvalue()


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def part_of(path: Path, reader: PictureReader = READER) -> Part:
    return reader.part(LocalFile(path), whole=True)


def read(path: Path, reader: PictureReader = READER) -> Array:
    """The picture, read into the middle of a larger array whose other bytes must stay as they are."""
    file = LocalFile(path)
    part = reader.part(file, whole=False)
    (field,) = part.fields
    assert (field.name, field.dtype, part.samples, part.places) == ("image", np.uint8, 1, None)
    arena = np.full(field.row_bytes + 128, 77, np.uint8)
    slot = arena[64:-64].reshape(1, *field.row_shape)
    reader.read(file, part, 0, {"image": slot})
    assert (arena[:64] == 77).all()
    assert (arena[-64:] == 77).all()
    return slot[0]


def by_image_reader(path: Path) -> Array:
    with ImageReader().open(path) as source:
        x_HWC = source.read(source.header.window).x_HWC
    return np.repeat(x_HWC, 3, axis=2) if x_HWC.shape[2] == 1 else x_HWC


def bilinear(x_HWC: Array, height: int, width: int) -> Array:
    return cv2.resize(x_HWC, (width, height), interpolation=cv2.INTER_LINEAR)


def antialiased(x_HWC: Array, height: int, width: int) -> Array:
    """The plain truth: sides that shrink to a power of two of what is left, halved by means; others grow."""
    less = min(height, x_HWC.shape[0]), min(width, x_HWC.shape[1])
    down, across = (int(np.log2(a / b)) for a, b in zip(x_HWC.shape, less, strict=False))
    small = bilinear(x_HWC, less[0] * 2**down, less[1] * 2**across)
    while down or across:
        rows, columns = 1 + (down > 0), 1 + (across > 0)
        tiles = small.reshape(len(small) // rows, rows, -1, columns, 3).astype(int)
        small = ((tiles.sum((1, 3)) + rows * columns // 2) // (rows * columns)).astype(np.uint8)
        down, across = max(0, down - 1), max(0, across - 1)
    return bilinear(small, height, width)


def png(height: int, width: int, depth: int, colour: int, idat: bytes, interlaced: bool = False) -> bytes:
    ihdr = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    pieces = (b"IHDR" + ihdr, b"IDAT" + zlib.compress(idat), b"IEND")
    chunks = (struct.pack(">I", len(p) - 4) + p + struct.pack(">I", zlib.crc32(p)) for p in pieces)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def interlaced_png(x_HWC: Array) -> bytes:
    """Adam7, every row unfiltered."""
    passes = (
        (0, 0, 8, 8),
        (0, 4, 8, 8),
        (4, 0, 8, 4),
        (0, 2, 4, 4),
        (2, 0, 4, 2),
        (0, 1, 2, 2),
        (1, 0, 2, 1),
    )
    rows = [row for top, left, down, right in passes for row in x_HWC[top::down, left::right] if row.size]
    return png(*x_HWC.shape[:2], 8, 2, b"".join(b"\0" + row.tobytes() for row in rows), interlaced=True)


def shallow_png(height: int, width: int, depth: int) -> bytes:
    row_bytes = -(-width * depth // 8)
    rows = np.random.default_rng(depth).integers(0, 256, (height, row_bytes), np.uint8)
    return png(height, width, depth, 0, b"".join(b"\0" + row.tobytes() for row in rows))


RGB = photo(37, 51)
RGBA = np.dstack([RGB, np.arange(37 * 51).reshape(37, 51) % 256]).astype(np.uint8)
PNGS: dict[str, bytes] = {
    "RGB": encoded(RGB, "png"),
    "grey": encoded(RGB, "png", "L"),
    "black and white": encoded(RGB, "png", "1"),
    "grey of 2 bits": shallow_png(19, 33, 2),
    "grey of 4 bits": shallow_png(20, 35, 4),
    "palette": encoded(RGB, "png", "P"),
    "palette of 2 bits": encoded((RGB[:, :, 0] >> 6) * 60, "png", "P", bits=2),
    "interlaced": interlaced_png(RGB),
    "RGBA": encoded(RGBA, "png"),
    "grey and alpha": encoded(RGBA, "png", "LA"),
    "palette, one see-through": encoded(RGB, "png", "P", transparency=3),
    "palette, many see-through": encoded(RGB, "png", "P", transparency=bytes(range(99))),
    "RGB, one see-through": encoded(RGB, "png", transparency=(1, 2, 3)),
    "grey, one see-through": encoded(RGB, "png", "L", transparency=9),
}


@pytest.mark.parametrize("kind", PNGS)
def test_a_png_has_the_pixels_that_pillow_gives_it(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / "x.png", PNGS[kind])
    with Image.open(path) as image:
        image.load()
        has_alpha = image.has_transparency_data
        image.info.pop("transparency", None)
        expected = np.asarray(
            image.convert("RGBA").convert("RGB") if image.mode == "LA" else image.convert("RGB")
        )
    np.testing.assert_array_equal(read(path), expected)
    assert part_of(path).left_out == (("Transparency is not read.",) if has_alpha else ())
    assert part_of(path).codec == "png"


@pytest.mark.parametrize("subsampling", [*SUBSAMPLINGS, "grey"])
@pytest.mark.parametrize("size", [(48, 64), (37, 51), (1, 1), (7, 3), (200, 1)])
def test_a_jpeg_has_the_pixels_that_simplejpeg_gives_it(
    tmp_path: Path, subsampling: str, size: tuple[int, int]
) -> None:
    x = photo(*size)
    if subsampling == "grey":
        data = encoded(x, "jpeg", "L")
    else:
        data = simplejpeg.encode_jpeg(x, 90, "RGB", subsampling)
    path = write(tmp_path / "x.jpg", data)
    np.testing.assert_array_equal(read(path), simplejpeg.decode_jpeg(data))
    np.testing.assert_array_equal(read(path), by_image_reader(path))
    assert part_of(path).codec == "jpeg"


@pytest.mark.parametrize("options", [{"progressive": True}, {"keep_rgb": True}, {"restart_marker_blocks": 2}])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_every_kind_of_jpeg_reads_as_the_scene_reader_reads_it(
    tmp_path: Path, mode: str, options: dict[str, Any]
) -> None:
    path = write(tmp_path / "x.jpeg", encoded(photo(75, 93), "jpeg", mode, **options))
    np.testing.assert_array_equal(read(path), by_image_reader(path))


def test_cmyk_becomes_rgb_as_pillow_makes_it_but_for_rounding(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jpg", encoded(photo(75, 93), "jpeg", "CMYK"))
    assert np.abs(read(path).astype(int) - by_image_reader(path)).max() <= 1


def with_orientation(x: Array, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(x, "jpeg", exif=exif.tobytes())


@pytest.mark.parametrize("orientation", range(10))
def test_a_jpeg_stands_upright_and_its_header_agrees(tmp_path: Path, orientation: int) -> None:
    path = write(tmp_path / "x.jpg", with_orientation(photo(40, 59), orientation))
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(read(path), expected)
    np.testing.assert_array_equal(read(path), by_image_reader(path))
    assert part_of(path).fields[0].shape == expected.shape


@pytest.mark.data
def test_every_real_photograph_has_the_decoders_pixels(data_dir: Path) -> None:
    paths = sorted((data_dir / "lesion").rglob("*.jpg"))
    assert len(paths) > 190
    for path in paths:
        np.testing.assert_array_equal(read(path), by_image_reader(path))


@pytest.mark.data
def test_every_real_png_has_pillows_pixels(data_dir: Path) -> None:
    paths = sorted((data_dir / "anomaly_paper").rglob("*.png"))[::7]
    paths += sorted((data_dir / "seg_nuclei" / "images").rglob("*.png"))[::7]
    assert len(paths) > 40
    for path in paths:
        with Image.open(path) as image:
            np.testing.assert_array_equal(read(path), np.asarray(image.convert("RGB")))


side = st.integers(1, 90)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(side, side, side, side, st.sampled_from(["jpeg", "png"]))
def test_a_resized_picture_is_the_decoded_one_resized(
    tmp_path: Path, height: int, width: int, to_height: int, to_width: int, kind: str
) -> None:
    path, size = write(tmp_path / "x.jpg", encoded(photo(height, width), kind)), (to_height, to_width)
    np.testing.assert_array_equal(read(path, PictureReader(size)), antialiased(read(path), *size))
    plainly = read(path, PictureReader(size, antialias=False))
    np.testing.assert_array_equal(plainly, bilinear(read(path), *size))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(33, 25), (90, 120), (33, 120)])
def test_turning_a_resized_picture_is_resizing_a_turned_one(
    tmp_path: Path, orientation: int, size: tuple[int, int]
) -> None:
    x = photo(60, 80)
    path = write(tmp_path / "x.jpg", with_orientation(x, orientation))
    x_HWC = read(path, PictureReader(size))
    stored_px = size[::-1] if orientation >= 5 else size
    lying = Image.fromarray(antialiased(simplejpeg.decode_jpeg(path.read_bytes()), *stored_px))
    lying.getexif()[0x0112] = orientation
    np.testing.assert_array_equal(x_HWC, np.asarray(ImageOps.exif_transpose(lying)))
    assert np.abs(x_HWC.astype(int) - antialiased(read(path), *size)).max() <= 1


@pytest.mark.data
@pytest.mark.parametrize(("antialias", "on_average", "at_most"), [(True, 0.8, 2.9), (False, 1.6, 5.2)])
def test_scaled_decoding_differs_by_what_the_docs_say(
    data_dir: Path, antialias: bool, on_average: float, at_most: float
) -> None:
    differences, smaller = [], 0
    for path in sorted((data_dir / "lesion").rglob("*.jpg")):
        for size in ((224, 224), (96, 128)):
            x_HWC = read(path, PictureReader(size, antialias=antialias))
            scaled_HWC = read(path, PictureReader(size, scaled=True, antialias=antialias))
            height, width, _ = part_of(path).fields[0].row_shape
            if min((height + 1) // 2 - size[0], (width + 1) // 2 - size[1]) < 0:
                np.testing.assert_array_equal(scaled_HWC, x_HWC)
            else:
                smaller += 1
                differences.append(np.abs(scaled_HWC.astype(int) - x_HWC).mean())
    assert smaller > 200
    assert np.mean(differences) <= on_average
    assert np.max(differences) <= at_most


def test_scaled_decoding_takes_the_smallest_size_not_below_the_asked_one(tmp_path: Path) -> None:
    data = encoded(photo(161, 203), "jpeg")
    path = write(tmp_path / "x.jpg", data)
    # 161 rows are 21 of 8: the last stands for one row alone and is dropped, unless it is asked for.
    for size, decoded, kept in (
        ((20, 25), (21, 26), (20, 25)),
        ((21, 26), (21, 26), (21, 26)),
        ((22, 26), (41, 51), (40, 51)),
        ((41, 51), (41, 51), (41, 51)),
        ((20, 52), (81, 102), (81, 102)),
        ((82, 30), (0, 0), (161, 203)),
    ):
        whole = simplejpeg.decode_jpeg(data, min_height=decoded[0], min_width=decoded[1])
        assert whole.shape[:2] == (decoded if any(decoded) else kept)
        expected = antialiased(whole[: kept[0], : kept[1]], *size)
        np.testing.assert_array_equal(read(path, PictureReader(size, scaled=True)), expected)


def test_a_size_that_stays_is_not_touched_by_resizing(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jpg", encoded(photo(61, 83), "jpeg"))
    for reader in (PictureReader((61, 83)), PictureReader((61, 83), scaled=True)):
        np.testing.assert_array_equal(read(path, reader), read(path))


def test_the_first_bytes_decide_not_the_suffix(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jpg", encoded(RGB, "png"))
    assert part_of(path).codec == "png"
    np.testing.assert_array_equal(read(path), RGB)


def test_of_an_animation_the_first_picture_is_read_and_that_is_said(tmp_path: Path) -> None:
    later = [Image.fromarray(photo(37, 51, seed)) for seed in (1, 2)]
    path = write(tmp_path / "x.png", encoded(RGB, "png", save_all=True, append_images=later))
    assert part_of(path).left_out == ("Only the first picture of an animation is read.",)
    np.testing.assert_array_equal(read(path), RGB)


def test_a_part_reads_the_head_of_the_file_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jpg", simplejpeg.encode_jpeg(photo(900, 1200), 95))
    asked = []

    class Counted(LocalFile):
        def read_into(self, offset: int, buffer: memoryview) -> None:
            asked.append((offset, len(buffer)))
            super().read_into(offset, buffer)

    file = Counted(path)
    assert file.size_bytes > 4 * 2**16
    READER.part(file, whole=True)
    assert asked
    assert max(offset + nbytes for offset, nbytes in asked) <= 2**16


def refused(path: Path, reader: PictureReader = READER) -> UnreadableFile:
    with pytest.raises(UnreadableFile) as caught:
        read(path, reader)
    assert str(path) in caught.value.message
    assert caught.value.message.endswith(".")
    assert caught.value.hint
    return caught.value


BREAKABLE: dict[str, Callable[[], bytes]] = {
    "jpeg": lambda: encoded(photo(90, 120), "jpeg"),
    "progressive": lambda: encoded(photo(90, 120), "jpeg", progressive=True),
    "grey": lambda: encoded(photo(90, 120), "jpeg", "L"),
    "cmyk": lambda: encoded(photo(90, 120), "jpeg", "CMYK"),
    "restarts": lambda: encoded(photo(90, 120), "jpeg", restart_marker_blocks=3),
    "png": lambda: encoded(photo(90, 120), "png"),
    "rgba": lambda: encoded(np.dstack([photo(90, 120), photo(90, 120)[:, :, :1]]), "png"),
}


@pytest.mark.parametrize("kind", BREAKABLE)
def test_a_truncated_picture_is_refused_even_if_an_end_marker_hides_it(tmp_path: Path, kind: str) -> None:
    whole = BREAKABLE[kind]()
    end = b"\xff\xd9" if whole.startswith(b"\xff\xd8") else whole[-12:]
    for share in (0.001, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9):
        for tail in (b"", end):
            path = write(tmp_path / "x.jpg", whole[: int(len(whole) * share)] + tail)
            if path.stat().st_size:
                refused(path)
                refused(path, PictureReader((20, 20), scaled=True))


def test_a_piece_missing_from_the_middle_is_refused(tmp_path: Path) -> None:
    whole = encoded(photo(90, 120), "jpeg")
    half = len(whole) // 2
    refused(write(tmp_path / "x.jpg", whole[:half] + whole[half + 900 :]))


def test_bytes_left_over_before_the_end_marker_harm_no_pixel(tmp_path: Path) -> None:
    whole = encoded(photo(90, 120), "jpeg")
    path = write(tmp_path / "x.jpg", whole[:-2] + b"\0\0\xff\xd9")
    np.testing.assert_array_equal(read(path), simplejpeg.decode_jpeg(whole))
    np.testing.assert_array_equal(read(path), by_image_reader(path))


def test_a_scan_header_that_every_decoder_ignores_harms_no_pixel(tmp_path: Path) -> None:
    whole = encoded(photo(90, 120), "jpeg")
    header_end = whole.index(b"\xff\xda") + 2 + 12
    assert whole[header_end - 3 : header_end] == b"\0\x3f\0"
    path = write(tmp_path / "x.jpg", whole[: header_end - 3] + b"\0\0\0" + whole[header_end:])
    np.testing.assert_array_equal(read(path), simplejpeg.decode_jpeg(whole))
    refused(write(path, path.read_bytes()[:-500] + b"\xff\xd9"))


def test_sixteen_bits_are_refused_with_a_mend(tmp_path: Path) -> None:
    x = np.arange(20 * 30 * 3, dtype=np.uint16).reshape(20, 30, 3)
    for bands in (x, x[:, :, 0].copy()):
        error = refused(write(tmp_path / "x.png", imagecodecs.png_encode(bands)))
        assert "16 bits" in error.message
        assert ".npy" in error.hint


def test_what_is_neither_jpeg_nor_png_is_refused(tmp_path: Path) -> None:
    for data in (
        b"x,y\n1,2\n",
        encoded(RGB, "webp"),
        encoded(RGB, "bmp"),
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n",
    ):
        refused(write(tmp_path / "x.jpg", data))


def lying_jpeg(height: int, width: int) -> bytes:
    data = bytearray(encoded(photo(90, 120), "jpeg"))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def test_a_claim_that_the_bytes_cannot_hold_is_refused_before_anything_is_allocated(tmp_path: Path) -> None:
    lies = [lying_jpeg(65_000, 65_000), lying_jpeg(0, 120), lying_jpeg(90, 0)]
    lies += [png(side, side, 8, 2, bytes(1000)) for side in (10_000, 100_000, 0)]
    meter = PeakMeter()
    before = charged_bytes()
    for data in lies:
        path = write(tmp_path / "x.jpg", data)
        with pytest.raises(UnreadableFile):
            part_of(path)
        with pytest.raises(UnreadableFile):
            part_of(path, PictureReader((8, 8)))
    assert meter.peak() - before < 8 * 2**20


def test_a_lie_about_the_size_that_the_bytes_could_hold_is_refused_when_read(tmp_path: Path) -> None:
    refused(write(tmp_path / "x.jpg", lying_jpeg(900, 1200)))


def test_more_pixels_than_the_limit_are_refused_from_the_header(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jpg", lying_jpeg(20_000, 20_000))
    with path.open("r+b") as file:
        file.truncate(2**30)
    with pytest.raises(UnreadableFile, match="are the most"):
        part_of(path)


def test_a_progressive_jpeg_of_endless_scans_is_refused(tmp_path: Path) -> None:
    whole = encoded(photo(90, 120), "jpeg", progressive=True)
    last = whole.rindex(b"\xff\xda")
    path = write(tmp_path / "x.jpg", whole[:-2] + whole[last:-2] * 200 + b"\xff\xd9")
    assert "scans" in refused(path).message


def test_a_picture_that_changed_since_it_was_listed_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jpg", encoded(photo(90, 120), "jpeg"))
    part = part_of(path)
    write(path, encoded(photo(120, 90), "jpeg"))
    with pytest.raises(UnreadableFile, match="changed"):
        READER.read(LocalFile(path), part, 0, {"image": np.empty((1, 90, 120, 3), np.uint8)})


def scratch_cases() -> dict[str, tuple[bytes, PictureReader]]:
    x = photo(1800, 2400)
    alpha = np.dstack([x, x[:, :, :1]])
    small = PictureReader((224, 224))
    return {
        "as it is": (simplejpeg.encode_jpeg(x), READER),
        "resized": (simplejpeg.encode_jpeg(x), small),
        "resized by halves": (simplejpeg.encode_jpeg(x), PictureReader((450, 599))),
        "resized plainly": (simplejpeg.encode_jpeg(x), PictureReader((224, 224), antialias=False)),
        "scaled": (simplejpeg.encode_jpeg(x), PictureReader((224, 224), scaled=True)),
        "on its side": (with_orientation(x, 6), READER),
        "progressive": (encoded(x, "jpeg", progressive=True), READER),
        "cmyk": (encoded(x, "jpeg", "CMYK"), small),
        "png": (encoded(x, "png", compress_level=1), READER),
        "rgba": (encoded(alpha, "png", compress_level=1), small),
        "one side grows": (simplejpeg.encode_jpeg(x), PictureReader((3000, 1500))),
    }


def test_reading_holds_no_more_than_was_said(tmp_path: Path) -> None:
    held, said = {}, {}
    for name, (data, reader) in scratch_cases().items():
        file = LocalFile(write(tmp_path / "x.jpg", data))
        part = reader.part(file, whole=True)
        slot = np.ones((1, *part.fields[0].row_shape), np.uint8)
        # What earlier arrays left in the heap would hide what is asked for now.
        ctypes.CDLL(None).malloc_trim(0)
        before, meter = charged_bytes(), PeakMeter()
        reader.read(file, part, 0, {"image": slot})
        held[name], said[name] = meter.peak() - before, part.scratch_bytes
    # The interpreter itself takes a megabyte or two back of what was trimmed.
    assert {name: n for name, n in held.items() if n > said[name] + 4 * 2**20} == {}
    # Nor is far more claimed than is needed.
    assert {name: n for name, n in held.items() if n < said[name] / 2} == {}


def test_a_strip_of_pixels_can_be_resized(tmp_path: Path) -> None:
    for size in ((3, 70_000), (70_000, 3)):
        path = write(tmp_path / "x.png", encoded(np.full((*size, 3), 9, np.uint8), "png"))
        assert (read(path, PictureReader((16, 16))) == 9).all()


def test_eight_threads_read_what_one_reads(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{i}.jpg", with_orientation(photo(90, 120, i), 1 + i % 8)) for i in range(16)]
    paths += [write(tmp_path / f"{i}.png", encoded(photo(90, 120, i), "png")) for i in range(8)]
    reader = PictureReader((50, 70), scaled=True)
    serial = [read(path, reader) for path in paths]
    with ThreadPoolExecutor(8) as pool:
        for alone, together in zip(serial * 4, pool.map(lambda p: read(p, reader), paths * 4), strict=True):
            np.testing.assert_array_equal(alone, together)


def test_sizes_that_no_picture_has_and_idle_settings_are_refused() -> None:
    for size in ((0, 5), (5, -1), (2**20, 2**20)):
        with pytest.raises(UsageError):
            PictureReader(size)
    with pytest.raises(UsageError):
        PictureReader(scaled=True)


def test_the_registry_makes_the_reader_without_arguments() -> None:
    assert SAMPLE_READERS.get("pictures")().suffixes == (".jpg", ".jpeg", ".png")

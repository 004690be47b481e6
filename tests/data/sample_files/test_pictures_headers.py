"""A JPEG's header says what Pillow reads in it, or is refused; and a picture is read without its part."""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, JpegImagePlugin

from caudal.core.errors import UnreadableFile
from caudal.data.open_parts import OpenParts
from caudal.data.sample_files.jpeg_header import read_jpeg_header
from caudal.data.sample_files.picture_header import BrokenPicture, PictureHeader
from caudal.data.sample_files.pictures import PictureReader
from caudal.data.sample_index import index_samples

ORIENTATION = 0x0112
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (45, 67, 3), np.uint8))
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="%d"/></x:xmpmeta>'


def jpeg(mode: str = "RGB", **options: Any) -> bytes:
    stream = io.BytesIO()
    PICTURE.convert(mode).save(stream, "jpeg", **options)
    return stream.getvalue()


def exif(orientation: int, order: str = "<", kind: int = 3) -> bytes:
    """A directory of two tags, the orientation the second."""
    value = struct.pack(order + ("HH" if kind == 3 else "I"), *([orientation, 0][: 2 if kind == 3 else 1]))
    entries = struct.pack(order + "HHI", 0x0100, 4, 1) + struct.pack(order + "I", 67)
    entries += struct.pack(order + "HHI", ORIENTATION, kind, 1) + value
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "I", 8)
    return b"Exif\0\0" + head + struct.pack(order + "H", 2) + entries + struct.pack(order + "I", 0)


def with_segments(data: bytes, *bodies: bytes) -> bytes:
    """`data` with notes behind the marker that starts it."""
    notes = b"".join(b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body for body in bodies)
    return data[:2] + notes + data[2:]


SEEDS = [
    jpeg(),
    jpeg("L", exif=exif(8)),
    jpeg("CMYK"),
    jpeg(progressive=True, exif=exif(6, ">", 4)),
    jpeg(restart_marker_blocks=2, subsampling=0, icc_profile=bytes(70_000)),
    with_segments(jpeg(), b"http://ns.adobe.com/xap/1.0/\0" + XMP % 3),
]


def header(data: bytes) -> PictureHeader | None:
    try:
        return read_jpeg_header(io.BytesIO(data))
    except (BrokenPicture, ValueError, struct.error):
        return None


def by_pillow(data: bytes) -> tuple[tuple[int, int], int, int, int] | None:
    """Stored size, samples, orientation, and where the first scan begins."""
    stream = io.BytesIO(data)
    try:
        image = JpegImagePlugin.JpegImageFile(stream)
        if not image.tile:
            return None
        end = stream.tell()
        try:
            turned = image.getexif().get(ORIENTATION, 1)
        except Exception:
            turned = 1
    except Exception:
        return None
    turned = turned if isinstance(turned, int) and 1 <= turned <= 8 else 1
    samples = 4 if image.mode == "CMYK" else 3
    return (image.height, image.width), samples, turned, 0 if "progressive" in image.info else end


@pytest.mark.parametrize("data", SEEDS)
def test_a_header_says_what_pillow_reads_in_it(data: bytes) -> None:
    found = header(data)
    assert found is not None
    assert (found.stored_px, found.samples, found.orientation, found.scan_end) == by_pillow(data)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(SEEDS[:4] + SEEDS[5:]),
    st.lists(st.tuples(st.integers(2, 700), st.integers(0, 255)), max_size=3),
)
@pytest.mark.filterwarnings("ignore")
def test_of_a_changed_header_size_and_scan_are_pillows_or_it_is_refused(
    whole: bytes, changes: list[tuple[int, int]]
) -> None:
    data = bytearray(whole)
    for place, value in changes:
        data[min(place, len(data) - 1)] = value
    found, other = header(bytes(data)), by_pillow(bytes(data))
    if found is not None and other is not None:
        assert (found.stored_px, found.samples, found.scan_end) == (other[0], other[1], other[3])


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [3, 4])
@pytest.mark.parametrize("orientation", [0, 1, 5, 8, 9, 60_000])
def test_the_orientation_is_read_in_either_byte_order(order: str, kind: int, orientation: int) -> None:
    data = jpeg(exif=exif(orientation, order, kind))
    found, other = header(data), by_pillow(data)
    assert found is not None
    assert other is not None
    assert found.orientation == other[2] == (orientation if 1 <= orientation <= 8 else 1)


def test_a_broken_note_breaks_no_picture() -> None:
    whole = exif(6)
    notes = [whole[:n] for n in range(6, len(whole) - 6)]
    notes += [b"Exif\0\0" + b"XX" + whole[8:], whole[:10] + b"\xff\xff\xff\xff" + whole[14:]]
    notes += [whole[:14] + b"\xff\xff" + bytes(20)]
    for note in notes:
        found = header(with_segments(jpeg(), note))
        assert found is not None
        assert found.orientation == 1
    # What EXIF does not say, XMP may; what it says is not asked twice.
    xmp = b"http://ns.adobe.com/xap/1.0/\0" + XMP % 7
    for notes, orientation in (([xmp], 7), ([exif(6), xmp], 6), ([exif(0), xmp], 1), ([whole[:9], xmp], 7)):
        found = header(with_segments(jpeg(), *notes))
        assert found is not None
        assert found.orientation == orientation


def test_a_scan_of_some_components_is_counted_as_held() -> None:
    whole = jpeg(subsampling=2)
    scan = whole.index(b"\xff\xda")
    parted = whole[:scan] + b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" + whole[scan + 14 :]
    one, several = header(whole), header(parted)
    assert one is not None
    assert several is not None
    assert one.coefficient_bytes == 0
    # 45×67 in units of 16×16: 48×80 samples of light, a quarter of that for each of two colours.
    assert several.coefficient_bytes == 2 * (48 * 80 + 2 * 24 * 40)


def test_headers_without_end_are_given_up() -> None:
    for filling in (b"\xff\xd0", b"\xff", b"x", b"\xff\xe0\x00\x02"):
        with pytest.raises(ValueError, match="no scan"):
            read_jpeg_header(io.BytesIO(b"\xff\xd8" + filling * 200_000))


@pytest.mark.parametrize("at_px", [(0, 67), (45, 0)])
def test_a_picture_without_pixels_is_refused(at_px: tuple[int, int]) -> None:
    data = bytearray(jpeg())
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", *at_px)
    assert header(bytes(data)) is None


class Counted(PictureReader):
    """Knows how often a header was asked for."""

    parts = 0

    def part(self, *arguments: Any) -> Any:
        self.parts += 1
        return super().part(*arguments)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for k in range(3):
        (tmp_path / f"{k}.jpg").write_bytes(jpeg(quality=60 + 10 * k))
    return tmp_path


def test_a_picture_is_read_without_asking_for_its_part(folder: Path) -> None:
    reader = Counted((20, 30))
    parts = OpenParts(index_samples(str(folder), reader=reader))
    asked = reader.parts
    for k in range(3):
        out, expected = (np.zeros((1, 20, 30, 3), np.uint8) for _ in range(2))
        parts.read(k, k + 1, {"image": out})
        reader.read_whole("x", (folder / f"{k}.jpg").read_bytes(), {"image": expected})
        assert expected.any()
        np.testing.assert_array_equal(out, expected)
    assert reader.parts == asked
    assert parts.bytes_read == sum(path.stat().st_size for path in folder.iterdir())


def test_no_file_stays_open_when_its_sample_was_read(folder: Path) -> None:
    parts = OpenParts(index_samples(str(folder), reader=PictureReader((20, 30))))
    before = len(list(Path("/proc/self/fd").iterdir()))
    for k in range(3):
        parts.read(k, k + 1, {"image": np.zeros((1, 20, 30, 3), np.uint8)})
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_what_took_the_place_of_a_picture_is_refused_and_never_waited_for(folder: Path) -> None:
    parts = OpenParts(index_samples(str(folder), reader=PictureReader((20, 30))))
    out, path = np.zeros((1, 20, 30, 3), np.uint8), folder / "1.jpg"

    def why() -> str:
        with pytest.raises(UnreadableFile) as caught:
            parts.read(1, 2, {"image": out})
        assert str(path) in caught.value.message
        return caught.value.message

    whole = path.read_bytes()
    for other in (whole[:-1], whole + b"x"):
        path.write_bytes(other)
        assert "when it was indexed" in why()
    path.write_bytes(bytes(len(whole)))
    assert "neither a JPEG nor a PNG" in why()
    path.unlink()
    assert "no such file" in why()
    os.mkfifo(path)
    assert "not a plain file" in why()
    path.unlink()
    path.mkdir()
    assert "folder" in why()

"""A TIFF that cannot be read is refused with a fact and a mend, at once, and nothing is allocated for it."""

from __future__ import annotations

import os
import struct
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile

from caudal.core.errors import UnreadableFile
from caudal.core.geometry import Window
from caudal.data.readers.base import Array
from caudal.data.readers.geotiff import GeoTiffReader, TiffSource
from tests.data.readers.tiff_files import block_tags, patch_tag, picture, tag_values, write_gdal

READER = GeoTiffReader()


def read_all(path: Path) -> None:
    with READER.open(path) as source:
        source.read(source.header.window)


@pytest.fixture(autouse=True)
def _quick_and_small() -> Iterator[None]:
    tracemalloc.start()
    start = time.thread_time()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert time.thread_time() - start < 2
    assert peak < 64 * 2**20


def assert_refused(path: Path, why: str, *, at_once: bool = True) -> None:
    """`why` is in the message; `at_once` means that the header is refused already."""
    with pytest.raises(UnreadableFile) as caught:
        READER.header(path) if at_once else read_all(path)
    error = caught.value
    assert why in error.message
    assert str(path) in error.message
    assert error.path == path
    assert error.message.count(". ") == 0, "one sentence of fact"
    assert error.hint.endswith(".")
    with pytest.raises(UnreadableFile):
        read_all(path)


def striped(path: Path, codec: str = "lzw", dtype: str = "uint16") -> Path:
    x_HWC = picture(64, 64, 3, dtype)
    return write_gdal(path, x_HWC, compress=codec, blockysize=16, interleave="pixel", photometric="rgb")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert_refused(tmp_path / "none.tif", "there is no such file")
    assert_refused(striped(tmp_path / "x.tif") / "y.tif", "there is no such file")


def test_an_empty_file_a_folder_and_a_pipe(tmp_path: Path) -> None:
    (tmp_path / "empty.tif").touch()
    (tmp_path / "folder.tif").mkdir()
    os.mkfifo(tmp_path / "pipe.tif")
    assert_refused(tmp_path / "empty.tif", "it is empty")
    assert_refused(tmp_path / "folder.tif", "it is a folder")
    assert_refused(tmp_path / "pipe.tif", "it is not a plain file")


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = striped(tmp_path / "x.tif")

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)  # root may read everything, so the refusal is played
    assert_refused(path, "permission is denied")


@pytest.mark.parametrize(
    "content", [b"x,y\n1,2\n", b"II", b"II*\0", b"MM\0*\0\0", b"\x89PNG\r\n\x1a\n", b"\0" * 64]
)
def test_a_file_of_another_kind(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.tif"
    path.write_bytes(content)
    assert_refused(path, "cannot be read")


def test_a_virtual_raster_that_calls_itself_tiff_opens_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    path.write_text(f'<VRTDataset rasterXSize="9" rasterYSize="9">{striped(tmp_path / "y.tif")}</VRTDataset>')
    assert_refused(path, "it is not a TIFF file")


@pytest.mark.parametrize("codec", ["none", "lzw"])
def test_a_truncated_file_at_any_length(tmp_path: Path, codec: str) -> None:
    path = striped(tmp_path / "x.tif", codec)
    whole = path.read_bytes()
    for keep in (5, 9, 60, 200, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:keep])
        with pytest.raises(UnreadableFile):
            read_all(path)


def test_blocks_beyond_the_end(tmp_path: Path) -> None:
    for values in ([2**31] * 4, [2**32 - 1] * 4):
        path = striped(tmp_path / "x.tif")
        patch_tag(path, block_tags(path)[0], values)
        assert_refused(path, "a block lies beyond the end of the file")
    path = write_gdal(tmp_path / "big.tif", picture(64, 64, 1, "uint8"), BIGTIFF="YES", blockysize=16)
    patch_tag(path, block_tags(path)[0], [2**64 - 1] * 4)
    with pytest.raises(UnreadableFile):
        read_all(path)


@pytest.mark.parametrize("codec", ["none", "lzw", "deflate", "zstd"])
def test_a_header_that_claims_a_million_million_pixels(tmp_path: Path, codec: str) -> None:
    path = striped(tmp_path / "x.tif", codec)
    patch_tag(path, 256, [65535])
    patch_tag(path, 257, [65535])
    assert_refused(path, "cannot be read")
    tiled = write_gdal(tmp_path / "y.tif", picture(64, 64, 3, "uint8"), compress=codec, tiled=True,
                       blockxsize=64, blockysize=64)  # fmt: skip
    for code in (256, 257):
        patch_tag(tiled, code, [65535])
    assert_refused(tiled, "its header needs")


@pytest.mark.parametrize("piece", ["<Item ", "<Item name", "<Item a=", "<Item>", 'a="', "a ", "a", "</Item>"])
def test_long_nonsense_where_band_names_are_is_passed_over_at_once(tmp_path: Path, piece: str) -> None:
    text = "<Item " + piece * (2**20 // len(piece)) + "></Item>"
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, picture(8, 8, 1, "uint8")[:, :, 0], extratags=[(42112, 2, 0, text, True)])
    assert READER.header(path).band_names == ()


def claim(path: Path, width: int, height: int, codec: int, data: bytes) -> None:
    """A TIFF of one 8-bit strip with those claims."""
    entries = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, codec), (262, 3, 1), (273, 4, 8),
               (277, 3, 1), (278, 4, height), (279, 4, len(data))]  # fmt: skip
    head = struct.pack("<2sHI", b"II", 42, 8 + len(data)) + data + struct.pack("<H", len(entries))
    path.write_bytes(head + b"".join(struct.pack("<HHII", c, t, 1, v) for c, t, v in entries) + bytes(4))


@pytest.mark.parametrize("codec", [1, 5, 7, 8, 32773, 34887, 50000, 50001])
@pytest.mark.parametrize(
    ("width", "height"), [(10**6, 10**6), (2**32 - 1, 2**32 - 1), (2**20, 2**8), (0, 9), (9, 0)]
)
def test_one_small_strip_that_claims_much_or_nothing(
    tmp_path: Path, codec: int, width: int, height: int
) -> None:
    path = tmp_path / "x.tif"
    claim(path, width, height, codec, b"\x80\x0b\x60\x50" * 8)
    with pytest.raises(UnreadableFile):
        read_all(path)


@pytest.mark.parametrize(
    "codec",
    ["lzw", "deflate", "zstd", "packbits", "jpeg", "lerc", "lerc_deflate", "lerc_zstd", "webp", "lzma"],
)
@pytest.mark.parametrize("damage", ["zeros", "ones", "half"])
def test_a_broken_block_is_named_and_the_others_still_read(tmp_path: Path, codec: str, damage: str) -> None:
    x_HWC = picture(64, 64, 3, "uint8")
    path = write_gdal(
        tmp_path / "x.tif", x_HWC, compress=codec, blockysize=16, interleave="pixel", photometric="rgb"
    )
    offsets, counts = (tag_values(path, code) for code in block_tags(path))
    first = Window(0, 0, 16, 64)
    with READER.open(path) as source:
        expected = source.read(first).x_HWC
    raw = bytearray(path.read_bytes())
    start, size = offsets[1], counts[1]
    if damage == "half":
        start, size = start + size // 2, size - size // 2
    raw[start : start + size] = (b"\xff" if damage == "ones" else b"\0") * size
    path.write_bytes(raw)
    with READER.open(path) as source:
        window = source.header.window
        # Any byte is a valid run of packbits, and nearly any makes a picture in WebP.
        if codec not in ("packbits", "webp") or damage == "zeros":
            with pytest.raises(UnreadableFile, match="cannot be read"):
                source.read(window)
        np.testing.assert_array_equal(source.read(first).x_HWC, expected)


def test_a_block_that_decodes_to_too_little(tmp_path: Path) -> None:
    path = striped(tmp_path / "x.tif", "deflate")
    offsets, counts = block_tags(path)
    shorter = tmp_path / "y.tif"
    tifffile.imwrite(
        shorter, picture(4, 64, 3, "uint16"), photometric="rgb", compression="zlib", predictor=None
    )
    segment = shorter.read_bytes()[tag_values(shorter, 273)[0] :][: tag_values(shorter, 279)[0]]
    raw = path.read_bytes()
    path.write_bytes(raw + segment)
    patch_tag(path, offsets, [len(raw), *tag_values(path, offsets)[1:]])
    patch_tag(path, counts, [len(segment), *tag_values(path, counts)[1:]])
    assert_refused(path, "is broken", at_once=False)


def with_second_block(path: Path, block: bytes) -> Path:
    """The file with another second block, appended to it."""
    raw = path.read_bytes()
    path.write_bytes(raw + block)
    offsets, counts = block_tags(path)
    patch_tag(path, offsets, [tag_values(path, offsets)[0], len(raw), *tag_values(path, offsets)[2:]])
    patch_tag(path, counts, [tag_values(path, counts)[0], len(block), *tag_values(path, counts)[2:]])
    return path


PICTURES: dict[str, Callable[[Array], bytes]] = {
    "jpeg": lambda x: bytes(imagecodecs.jpeg8_encode(x, level=90, subsampling="444", **AS_STORED)),
    "lerc": lambda x: bytes(imagecodecs.lerc_encode(x, level=0, version=4)),
    "lerc_zstd": lambda x: bytes(imagecodecs.zstd_encode(imagecodecs.lerc_encode(x, level=0, version=4))),
    "webp": lambda x: bytes(imagecodecs.webp_encode(x, lossless=True)),
}
AS_STORED = {"colorspace": "RGB", "outcolorspace": "RGB"}


@pytest.mark.parametrize("codec", PICTURES)
@pytest.mark.parametrize("shape", [(16, 48, 3), (512, 2048, 3), (32, 64, 3), (8, 64, 3)])
def test_a_block_whose_own_header_claims_another_size_is_refused_unallocated(
    tmp_path: Path, codec: str, shape: tuple[int, int, int]
) -> None:
    path = striped(tmp_path / "x.tif", codec, "uint8")
    with READER.open(with_second_block(path, PICTURES[codec](np.zeros(shape, np.uint8)))) as source:
        assert isinstance(source, TiffSource)
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        with pytest.raises(UnreadableFile, match="it decodes to another size"):
            source.read(source.header.window)
        assert tracemalloc.get_traced_memory()[1] - before < 2**20


def test_a_jpeg_block_coded_otherwise_than_the_first_is_refused(tmp_path: Path) -> None:
    x_HWC = picture(16, 64, 3, "uint8")
    grey = imagecodecs.jpeg8_encode(x_HWC[:, :, 0].copy(), level=90)
    small = imagecodecs.jpeg8_encode(x_HWC, level=90, subsampling="420")
    for block in (grey, small):
        path = with_second_block(striped(tmp_path / "x.tif", "jpeg", "uint8"), bytes(block))
        assert_refused(path, "it is coded otherwise than the first block", at_once=False)


def test_a_lerc_block_without_a_checksum_is_refused(tmp_path: Path) -> None:
    old = imagecodecs.lerc_encode(np.zeros((16, 64), np.uint8), level=0, version=2)
    path = write_gdal(tmp_path / "x.tif", picture(64, 64, 1, "uint8"), compress="lerc", blockysize=16)
    assert_refused(with_second_block(path, bytes(old)), "its LERC header is damaged", at_once=False)


def test_a_file_that_shrinks_while_it_is_open(tmp_path: Path) -> None:
    path = striped(tmp_path / "x.tif")
    with READER.open(path) as source:
        os.truncate(path, 1000)
        with pytest.raises(UnreadableFile, match="ends before byte"):
            source.read(source.header.window)


def test_complex_pixels_are_refused(tmp_path: Path) -> None:
    path = write_gdal(tmp_path / "x.tif", np.ones((8, 8, 1), np.complex64))
    assert_refused(path, "complex numbers")


def test_a_source_is_closed_once_and_gives_its_descriptor_back(tmp_path: Path) -> None:
    path = striped(tmp_path / "x.tif")
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(20):
        source = READER.open(path)
        source.close()
        source.close()
        READER.header(path)
        with pytest.raises(UnreadableFile):
            READER.open(tmp_path / "none.tif")
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208

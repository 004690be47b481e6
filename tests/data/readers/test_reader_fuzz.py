"""Whatever bytes are changed, a reader gives an array or says `UnreadableFile`; nothing else escapes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from caudal.core.errors import UnreadableFile
from caudal.core.geometry import Window
from caudal.data.readers import reader_for
from tests.data.readers.tiff_files import picture, write_gdal

ROUNDS = 70


def mutated(whole: bytes, random: np.random.Generator) -> bytes:
    """Bytes flipped near the head or anywhere, a run overwritten, a piece cut out, or the end cut off."""
    raw = bytearray(whole)
    kind = int(random.integers(0, 5))
    reach = len(raw) if kind else min(len(raw), 700)
    if kind < 3:
        for place in random.integers(0, reach, int(random.integers(1, 9))):
            raw[place] = int(random.integers(0, 256))
    elif kind == 3:
        start = int(random.integers(0, len(raw)))
        raw[start : start + 40] = random.bytes(int(random.integers(0, 60)))
    else:
        del raw[int(random.integers(0, len(raw))) :]
    return bytes(raw)


def sample(name: str, folder: Path) -> Path:
    x_HWC = picture(40, 48, 3, "uint8")
    path = folder / name
    if path.suffix != ".tif":
        Image.fromarray(x_HWC).save(path)
        return path
    codec, _, layout = path.stem.partition("-")
    tiles = {"tiled": True, "blockxsize": 16, "blockysize": 16}
    options = tiles if layout == "tiles" else {"blockysize": 9, "interleave": "band"}
    return write_gdal(path, x_HWC, compress=codec, nodata=3, photometric="rgb", **options)


@pytest.mark.parametrize(
    "name",
    ["none-strips.tif", "lzw-tiles.tif", "deflate-strips.tif", "zstd-tiles.tif", "packbits-strips.tif",
     "jpeg-tiles.tif", "lerc-tiles.tif", "x.jpg", "x.png", "x.bmp", "x.webp"],
)  # fmt: skip
def test_changed_bytes_give_an_array_or_an_unreadable_file(tmp_path: Path, name: str) -> None:
    path = sample(name, tmp_path)
    whole = path.read_bytes()
    random = np.random.default_rng(sum(name.encode()))
    refused = 0
    for _ in range(ROUNDS):
        path.write_bytes(mutated(whole, random))
        reader = reader_for(path)
        try:
            header = reader.header(path)
            with reader.open(path) as source:
                assert source.header == header or header.nodata != header.nodata
                window = Window(0, 0, min(header.height, 256), min(header.width, 256))
                pixels = source.read(window)
        except UnreadableFile:
            refused += 1
        else:
            assert pixels.x_HWC.shape == (window.height, window.width, header.bands)
            assert pixels.x_HWC.dtype == header.dtype
    assert refused

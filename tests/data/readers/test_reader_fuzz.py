"""Whatever bytes are changed, a reader gives an array or says `UnreadableFile`; nothing else escapes.

TIFFs and real photos are broken in a child process: `test_tiff_fuzz.py`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from caudal.core.errors import UnreadableFile
from caudal.core.geometry import Window
from caudal.data.readers import reader_for
from tests.data.readers.mutations import mutated
from tests.data.readers.tiff_files import picture

ROUNDS = 70


def sample(name: str, folder: Path) -> Path:
    x_HWC = picture(40, 48, 3, "uint8")
    path = folder / name
    Image.fromarray(x_HWC).save(path)
    return path


@pytest.mark.parametrize("name", ["x.jpg", "x.png", "x.bmp", "x.webp"])
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

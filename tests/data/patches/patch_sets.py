"""Scenes whose pixels say where they lie, with masks; and what a stream makes of them."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from hypothesis import HealthCheck, settings

import caudal
from caudal.data.batches import Batch
from tests.data.sets import write_tiff

PATCH = 32
SIZES = [(200, 150), (130, 260), (64, 64), (300, 90), (97, 203), (40, 20)]
VALUES = (0, 7, 40)
DRAWS = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))

Numbered = list[tuple[int, bytes]]


def placed(height: int, width: int, number: int) -> np.ndarray:
    """An image that says of each pixel where it lies: row, column, number; and noise, to be large."""
    rows, cols = np.indices((height, width))
    noise = np.random.default_rng(number).integers(0, 2**16, (height, width))
    return np.stack([rows, cols, np.full_like(rows, number), noise], -1).astype(np.uint16)


def mask_of(height: int, width: int, number: int) -> np.ndarray:
    """Squares of three classes, and a stripe that is left out."""
    rows, cols = np.indices((height, width))
    y = np.asarray(VALUES, np.uint8)[(rows // 9 + cols // 7 + number) % 3]
    y[5:8] = 255
    return y


def make_set(folder: Path, sizes: list[tuple[int, int]] = SIZES) -> Path:
    how: dict[str, Any] = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"}
    for number, (height, width) in enumerate(sizes):
        write_tiff(folder / "images" / f"{number}.tif", placed(height, width, number), **how)
        write_tiff(folder / "masks" / f"{number}.tif", mask_of(height, width, number)[:, :, None], **how)
    return folder


def break_tile(path: Path, number: int) -> None:
    """Lose the second half of a tile."""
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        offset, size = page.dataoffsets[number], page.databytecounts[number]
    with path.open("r+b") as raw:
        raw.seek(offset + size // 2)
        raw.write(b"\xff" * (size - size // 2))


def made(folder: Path, batch: int = 6, **options: Any) -> caudal.Stream:
    how = {"patch_px": PATCH, "masks": folder, "ram": "24MiB", "seed": 4, "broken_limit": 0.3} | options
    return caudal.stream(folder / "images" if how["masks"] is None else folder, batch, **how)


def content(batch: Batch) -> Numbered:
    fields = [batch.numpy(name) for name in batch]
    return [
        (number, b"".join(field[k].tobytes() for field in fields))
        for k, number in enumerate(batch.samples.tolist())
    ]


def delivered(stream: caudal.Stream, stop: int | None = None) -> list[Numbered]:
    return [content(batch) for batch in itertools.islice(stream, stop)]


def merged(of_ranks: list[list[Numbered]]) -> list[Numbered]:
    """What ranks got, as one process would have got it."""
    whole = []
    for parts in zip(*of_ranks, strict=True):
        batch: list[Any] = [None] * sum(map(len, parts))
        for rank, part in enumerate(parts):
            batch[rank :: len(parts)] = part
        whole.append(batch)
    return whole


def places(stream: caudal.Stream) -> list[tuple[int, int, int]]:
    """(image, row, column) of each patch, which is checked to be what lies there."""
    found = []
    for batch in stream:
        for x in batch.numpy("image"):
            number, row, col = int(x[0, 0, 2]), int(x[0, 0, 0]), int(x[0, 0, 1])
            image = placed(*SIZES[number], number)[row : row + PATCH, col : col + PATCH]
            assert (x[: image.shape[0], : image.shape[1]] == image).all()
            found.append((number, row, col))
    return found

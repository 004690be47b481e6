"""Sets of pictures: rasters in three layouts, and photographs. Seeded, textured like land and like scenes.

The texture is noise whose strength falls with the frequency, as in nature, plus sensor noise: it sets how
well a file compresses and so how fast it decodes. It is no photograph; rates differ on real ones.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio

from benchmarks.peers.prints import MARKS

BANDS, PATCH_PX = 5, 128
SIDE_PX, SCENES = 4096, 4
SMALL_PX, SMALL_SCENES = 713, 190
PHOTO_WIDE, PHOTO_HIGH, PHOTO_QUALITY = 500, 375, 90
Floats = npt.NDArray[np.float32]

_TILES = {"tiled": True, "blockxsize": 256, "blockysize": 256, "predictor": 2}


def tiled_deflate(folder: Path, share: float) -> dict[str, Any]:
    """4 scenes of 4096 × 4096 × 5 uint16, DEFLATE with predictor 2, in tiles of 256."""
    return _scenes(folder, share, SCENES, SIDE_PX, _TILES | {"compress": "deflate"})


def tiled_zstd(folder: Path, share: float) -> dict[str, Any]:
    """The same scenes, ZSTD with predictor 2, in tiles of 256."""
    return _scenes(folder, share, SCENES, SIDE_PX, _TILES | {"compress": "zstd"})


def striped_lzw(folder: Path, share: float) -> dict[str, Any]:
    """The same scenes, LZW in strips of one row."""
    return _scenes(folder, share, SCENES, SIDE_PX, {"compress": "lzw"})


def small_lzw(folder: Path, share: float) -> dict[str, Any]:
    """190 scenes of 713 × 713 × 5 uint16, LZW in strips of one row."""
    return _scenes(folder, share, SMALL_SCENES, SMALL_PX, {"compress": "lzw"})


def _scenes(folder: Path, share: float, files: int, side: int, options: dict[str, Any]) -> dict[str, Any]:
    # A share is of the area: sides shrink, and where that is not enough, the files become fewer.
    files = max(2, round(files * share)) if files > SCENES else files
    side = max(512, round(side * share**0.5 / 256) * 256) if side > SMALL_PX else side
    profile = {"driver": "GTiff", "height": side, "width": side, "count": BANDS, "dtype": "uint16"}
    profile |= {"crs": "EPSG:32630", "interleave": "pixel", "num_threads": 2}
    profile["transform"] = rasterio.transform.from_origin(500000, 4000000, 2, 2)
    for number in range(files):
        with rasterio.open(folder / f"{number:03d}.tif", "w", **(profile | options)) as file:
            file.write(_land(np.random.default_rng((6, number)), side))
    samples = files * (side // PATCH_PX) ** 2
    return {
        "kind": "scenes", "samples": samples, "files": files, "side_px": side, "patch_px": PATCH_PX,
        "sample_bytes": PATCH_PX**2 * BANDS * 2,
    }  # fmt: skip


def _land(draw: np.random.Generator, side: int) -> npt.NDArray[np.uint16]:
    """(bands, side, side): bands are mixtures of two textures, as neighbouring wavelengths are alike."""
    one, other = _texture(draw, side), _texture(draw, side)
    bands = []
    for _band in range(BANDS):
        a, b = draw.uniform(0.3, 1, 2)
        x = 2500 + 500 * (a * one + b * other) + draw.normal(0, 6, (side, side)).astype(np.float32)
        bands.append(np.clip(x, 1, 12000).astype(np.uint16))
    return np.stack(bands)


def _texture(draw: np.random.Generator, side: int, fall: float = 1.3) -> Floats:
    """(side, side) noise of mean 0 and deviation 1, its amplitude falling as the frequency to the `fall`."""
    noise = draw.standard_normal((side, side), np.float32)
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None]).astype(np.float32)
    frequency[0, 0] = np.inf
    x = np.fft.irfft2(np.fft.rfft2(noise) * frequency**-fall, (side, side)).astype(np.float32)
    return np.asarray((x - x.mean()) / x.std(), np.float32)


def photographs(folder: Path, share: float) -> dict[str, Any]:
    """4 000 JPEGs of 500 × 375, quality 90, some 60 kB each; the number of each is drawn along its bottom."""
    import simplejpeg

    draw = np.random.default_rng(7)
    count = max(1, round(4000 * share))
    canvases = [np.stack([_texture(draw, 1024, 1.5) for _colour in range(3)], 2) for _canvas in range(6)]
    for number in range(count):
        data = simplejpeg.encode_jpeg(_photograph(draw, canvases, number), PHOTO_QUALITY)
        (folder / f"{number:05d}.jpg").write_bytes(data)
    return {"kind": "photographs", "samples": count, "sample_bytes": 224 * 224 * 3, "quality": PHOTO_QUALITY}


def _photograph(draw: np.random.Generator, canvases: list[Floats], number: int) -> npt.NDArray[np.uint8]:
    row, col = draw.integers(0, 1024 - PHOTO_HIGH), draw.integers(0, 1024 - PHOTO_WIDE)
    x = canvases[draw.integers(len(canvases))][row : row + PHOTO_HIGH, col : col + PHOTO_WIDE]
    mixed = x @ (0.6 * np.eye(3) + 0.4 * draw.random((3, 3))).astype(np.float32)
    for _thing in range(6):  # edges, as things in front of a ground have them
        top, left = draw.integers(0, PHOTO_HIGH - 40), draw.integers(0, PHOTO_WIDE - 40)
        mixed[top : top + draw.integers(20, 160), left : left + draw.integers(20, 160)] += draw.normal(
            0, 0.8, 3
        )
    mixed += draw.normal(0, 0.05, mixed.shape)
    picture = np.clip(120 + 45 * mixed, 0, 255).astype(np.uint8)
    picture[-PHOTO_HIGH // 11 :] = _marks(number)
    return picture


def _marks(number: int) -> npt.NDArray[np.uint8]:
    """(width, 1): light squares where the number has a one, the lowest bit on the left."""
    bits = (number >> np.arange(MARKS)) & 1
    return (bits[np.arange(PHOTO_WIDE) * MARKS // PHOTO_WIDE] * 255).astype(np.uint8)[:, None]

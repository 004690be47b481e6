"""Decoders of TIFF blocks side by side, as a table: `python -m benchmarks.decoders [WORD…]`.

One raster of 1024×1024×3 pixels is written in each codec and read whole from the page cache, in four ways:
by imagecodecs block by block (tifffile does that), by libtiff through a capsule (pixels in groups, put
nowhere), by GDAL, and by Caudal's reader. A cell has decoded MB/s of one core, by the thread's own processor
time, so that neighbours on the machine matter little; of two threads, by the clock, each reading for itself,
where they do matter; and the second over what two processes do, medians of interleaved rounds: at 1.00 no
thread waits for another, on a busy machine too.
"""

from __future__ import annotations

import os
import platform
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import rasterio
import simplejpeg
import tifffile
from caudal.data.readers.files import open_for_reading, read_exactly
from tests.data.sets import write_tiff

from benchmarks.__main__ import machine
from caudal.data.readers.base import Array
from caudal.data.readers.geotiff import GeoTiffReader, TiffSource
from caudal.data.readers.tiff_blocks import groups
from caudal.data.readers.tiff_capsule import decode_capsule
from caudal.data.readers.tiff_layout import PICTURES, Foreign, read_layout

SIDE, ROUNDS = 1024, 5
TILES: dict[str, Any] = {"tiled": True, "blockxsize": 256, "blockysize": 256}
WAYS = ("imagecodecs", "libtiff", "GDAL", "Caudal")
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "none": ("uint16", {}),
    "DEFLATE, predictor 2": ("uint16", {"compress": "deflate", "predictor": 2}),
    "DEFLATE, predictor 3": ("float32", {"compress": "deflate", "predictor": 3}),
    "LZW, predictor 2": ("uint16", {"compress": "lzw", "predictor": 2}),
    "LZW, predictor 3": ("float32", {"compress": "lzw", "predictor": 3}),
    "ZSTD, predictor 2": ("uint16", {"compress": "zstd", "predictor": 2}),
    "ZSTD, predictor 3": ("float32", {"compress": "zstd", "predictor": 3}),
    "PackBits": ("uint8", {"compress": "packbits"}),
    "JPEG, RGB": ("uint8", {"compress": "jpeg", "photometric": "rgb", "JPEG_QUALITY": 90}),
    "JPEG, YCbCr 4:2:0": ("uint8", {"compress": "jpeg", "photometric": "ycbcr", "JPEG_QUALITY": 90}),
    "LERC, lossless": ("uint16", {"compress": "lerc"}),
    "LERC, error 0.01": ("float32", {"compress": "lerc", "MAX_Z_ERROR": 0.01}),
    "LERC_DEFLATE": ("uint16", {"compress": "lerc_deflate"}),
    "LERC_ZSTD": ("uint16", {"compress": "lerc_zstd"}),
    "WebP, lossless": ("uint8", {"compress": "webp", "photometric": "rgb", "WEBP_LOSSLESS": "YES"}),
    "WebP, quality 75": ("uint8", {"compress": "webp", "photometric": "rgb"}),
    "LZMA, predictor 2": ("uint16", {"compress": "lzma", "predictor": 2}),
}  # fmt: skip


def scene(dtype: str) -> Array:
    """Smooth hills with fine grain, as a scene has them: x_HWC."""
    draw = np.random.default_rng(0)
    x_HWC = np.zeros((SIDE, SIDE, 3))
    for cell in (4, 16, 64, 256):
        coarse = draw.normal(0, cell**0.7, (SIDE // cell, SIDE // cell, 3))
        x_HWC += coarse.repeat(cell, 0).repeat(cell, 1)
    x_HWC = (x_HWC - x_HWC.min()) / np.ptp(x_HWC)
    if dtype != "float32":
        x_HWC = x_HWC * (250 if dtype == "uint8" else 9000) + draw.integers(0, 4, x_HWC.shape)
    return np.asarray(x_HWC, dtype)


def ways_for(path: Path) -> list[str]:
    """The ways that read this file."""
    return [way for way in WAYS if way != "libtiff" or _capsules(path)]


def read(way: str, path: Path) -> None:
    """Open the file, read all of it, close it."""
    if way == "imagecodecs":
        tifffile.imread(path, maxworkers=1)
    elif way == "GDAL":
        with rasterio.Env(GDAL_CACHEMAX=16 * 2**20), rasterio.open(path) as source:
            source.read()
    elif way == "libtiff":
        _by_capsules(path)
    else:
        with GeoTiffReader().open(path) as caudals:
            caudals.read(caudals.header.window)


def _capsules(path: Path) -> bool:
    fd, size_bytes = open_for_reading(path)
    try:
        codec = read_layout(partial(read_exactly, fd, path), path, size_bytes).codec
    except Foreign:
        return False
    finally:
        os.close(fd)
    return codec not in (1, *PICTURES)


def _by_capsules(path: Path) -> None:
    fd, size_bytes = open_for_reading(path)
    try:
        layout = read_layout(partial(read_exactly, fd, path), path, size_bytes)
        for group in groups(layout, layout.header().window):
            decode_capsule(fd, layout, group)
    finally:
        os.close(fd)


def measure(path: Path, nbytes: int, threads: Executor, processes: Executor) -> dict[str, str]:
    """A cell of the table for each way."""
    cells = {}
    one: dict[str, list[float]] = defaultdict(list)
    two: dict[str, list[float]] = defaultdict(list)
    apart: dict[str, list[float]] = defaultdict(list)
    for _round in range(ROUNDS):
        for way in ways_for(path):
            began = time.thread_time()
            read(way, path)
            one[way].append(time.thread_time() - began)
            for pool, seconds in ((threads, two[way]), (processes, apart[way])):
                began = time.perf_counter()
                list(pool.map(read, [way] * 4, [path] * 4))
                seconds.append((time.perf_counter() - began) / 4)
    for way in one:
        share = statistics.median(apart[way]) / statistics.median(two[way])
        cells[way] = f"{nbytes / 1e6 / min(one[way]):.0f} / {nbytes / 1e6 / min(two[way]):.0f} / {share:.2f}"
    return cells


def main() -> None:
    """Measure every case in every layout and print the table."""
    versions = {
        "imagecodecs": imagecodecs.__version__, "tifffile": tifffile.__version__,
        "simplejpeg": simplejpeg.__version__, "rasterio": rasterio.__version__,
        "GDAL": rasterio.__gdal_version__, "Python": platform.python_version(),
    }  # fmt: skip
    print(f"{machine()}; " + ", ".join(f"{name} {version}" for name, version in versions.items()))
    print(f"\n| codec | blocks | {' | '.join(WAYS)} | native |\n|---|---|{'---|' * len(WAYS)}---|")
    wanted = sys.argv[1:]
    spawned = ProcessPoolExecutor(2, get_context("spawn"))
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as threads, spawned as processes:
        for label, (dtype, options) in CASES.items():
            if wanted and not any(word.lower() in label.lower() for word in wanted):
                continue
            x_HWC = scene(dtype)
            rows = 16 if options.get("compress") == "jpeg" else 4
            for blocks, layout in {
                "tiles 256²": TILES,
                f"strips of {rows} rows": {"blockysize": rows},
            }.items():
                settings = {"interleave": "pixel", "photometric": "minisblack"} | options | layout
                path = write_tiff(Path(folder) / "x.tif", x_HWC, **settings)
                found = measure(path, x_HWC.nbytes, threads, processes)
                cells = [found.get(way, "–") for way in WAYS]
                with GeoTiffReader().open(path) as source:
                    native = "yes" if isinstance(source, TiffSource) else "no"
                print(f"| {label} | {blocks} | {' | '.join(cells)} | {native} |", flush=True)


if __name__ == "__main__":
    main()

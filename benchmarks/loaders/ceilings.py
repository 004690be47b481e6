"""What this machine could do at best: copying, page cache, disk, decoding each block or picture once.

Nothing is delivered here. A row quotes its rate as a share of the ceiling that binds it; only windows that
share pixels can come faster than their blocks are decoded. Each is measured in a process of its own.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.loaders.harness import ENVIRONMENT, ROOT

THREADS = 2
COPIED_BYTES, READ_BYTES = 128 << 20, 4 << 20
ROUNDS = 3


def measure(name: str, folder: Path, rounds: int = ROUNDS) -> dict[str, float]:
    """A ceiling in bytes or samples a second, by the name that it has below; the median of `rounds`.

    Raises:
        RuntimeError: the measurement failed; the message is its last words.
    """
    found: list[dict[str, float]] = []
    for _round in range(rounds):
        ended = subprocess.run(
            [sys.executable, "-m", "benchmarks.loaders.ceilings", name, str(folder)],
            cwd=ROOT, env=os.environ | ENVIRONMENT, capture_output=True, text=True,
        )  # fmt: skip
        if ended.returncode:
            raise RuntimeError(ended.stderr.strip().splitlines()[-1])
        found.append(json.loads(ended.stdout.splitlines()[-1]))
    return {key: statistics.median(one[key] for one in found) for key in found[0]}


def memcpy(_folder: Path) -> dict[str, float]:
    """Copying memory into memory that is already there, by one thread and by two; bytes/s."""
    buffers = [
        (np.ones(COPIED_BYTES, np.uint8), np.ones(COPIED_BYTES, np.uint8)) for _thread in range(THREADS)
    ]

    def copy(k: int) -> int:
        for _repeat in range(8):
            np.copyto(buffers[k][1], buffers[k][0])
        return 8 * COPIED_BYTES

    return {"memcpy_1": _rate(copy, range(1), 1), "memcpy_2": _rate(copy, range(THREADS), THREADS)}


def page(folder: Path) -> dict[str, float]:
    """Reading files that are in the page cache into memory used again and again; bytes/s."""
    paths = _paths(folder)
    for path in paths:
        _read(path)
    return {"page_1": _rate(_read, paths, 1), "page_2": _rate(_read, paths, THREADS)}


def disk(folder: Path) -> dict[str, float]:
    """Reading files that were dropped from the page cache, from front to back; bytes/s."""
    paths = _paths(folder)
    for path in paths:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return {"disk": _rate(_read, paths, THREADS)}


def blocks(folder: Path) -> dict[str, float]:
    """Decoding every tile or strip of the rasters once on both cores; decoded bytes/s, faster decoder."""
    paths = sorted(folder.glob("*.tif"))[:8]
    found = {"gdal": _rate(_gdal, [(path, k) for path in paths for k in range(THREADS)], THREADS)}
    found["imagecodecs"] = _rate(_imagecodecs, [(path, k) for path in paths for k in range(THREADS)], THREADS)
    return found | {"blocks": max(found.values())}


def pictures(folder: Path) -> dict[str, float]:
    """Decoding and resizing photographs that are in memory, on both cores; pictures/s, whole and scaled."""
    from benchmarks.peers.sources import picture

    data = [path.read_bytes() for path in sorted(folder.glob("*.jpg"))[:1000]]

    def decode(job: tuple[int, bool]) -> int:
        mine = data[job[0] :: THREADS]
        for one in mine:
            picture(one, job[1])
        return len(mine)

    return {
        name: _rate(decode, [(k, scaled) for k in range(THREADS)], THREADS)
        for name, scaled in (("pictures", False), ("pictures_scaled", True))
    }


def _rate(work: Callable[[Any], int], items: Sequence[Any], threads: int) -> float:
    work(items[0])
    with ThreadPoolExecutor(threads) as pool:
        began = time.perf_counter()
        done = sum(pool.map(work, items))
        return done / (time.perf_counter() - began)


def _paths(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix != ".json")


def _read(path: Path) -> int:
    buffer, done = memoryview(bytearray(READ_BYTES)), 0
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            done += count
    return done


def _gdal(job: tuple[Path, int]) -> int:
    """Every block of one half of a raster, a row of blocks at a time."""
    import rasterio
    from rasterio.windows import Window

    done = 0
    with rasterio.open(job[0]) as file:
        high = max(file.block_shapes[0][0], 256)
        for row in list(range(0, file.height, high))[job[1] :: THREADS]:
            done += file.read(window=Window(0, row, file.width, min(high, file.height - row))).nbytes
    return done


def _imagecodecs(job: tuple[Path, int]) -> int:
    import tifffile

    done = 0
    with tifffile.TiffFile(job[0]) as file:
        page, raw = file.pages.first, np.memmap(job[0], np.uint8, "r")
        for number in range(job[1], len(page.dataoffsets), THREADS):
            start, length = page.dataoffsets[number], page.databytecounts[number]
            done += np.asarray(page.decode(raw[start : start + length], number)[0]).nbytes
    return done


CEILINGS = {"memcpy": memcpy, "page": page, "disk": disk, "blocks": blocks, "pictures": pictures}

if __name__ == "__main__":
    print(json.dumps(CEILINGS[sys.argv[1]](Path(sys.argv[2]))))

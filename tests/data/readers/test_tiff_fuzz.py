"""Broken TIFFs and JPEGs are read or refused: no crash, no hang, no memory beyond an honest file's."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio

from tests.cgroups import run_in_group
from tests.data.readers.tiff_files import write_gdal

COUNT, SEED = 2000, 20
LIMIT_BYTES = 700 * 2**20
TILES = {"tiled": True, "blockxsize": 48, "blockysize": 32}
VARIANTS = {
    "none": {"blockysize": 9},
    "none-band": {"interleave": "band", "blockysize": 7, "ENDIANNESS": "BIG"},
    "deflate": {"compress": "deflate", "predictor": 2, **TILES},
    "deflate-big": {"compress": "deflate", "BIGTIFF": "YES", "ENDIANNESS": "BIG"},
    "lzw": {"compress": "lzw", "predictor": 2, "interleave": "band", **TILES},
    "zstd": {"compress": "zstd", "blockysize": 5},
    "packbits": {"compress": "packbits", **TILES},
    "jpeg": {"compress": "jpeg", "photometric": "rgb", **TILES},
    "jpeg-strips": {"compress": "jpeg", "photometric": "minisblack", "blockysize": 16},
    "jpeg-ycbcr": {"compress": "jpeg", "photometric": "ycbcr", **TILES},
    "lerc": {"compress": "lerc", **TILES},
    "lerc-zstd": {"compress": "lerc_zstd", "interleave": "band", "blockysize": 16},
    "lerc-deflate": {"compress": "lerc_deflate", **TILES},
    "webp": {"compress": "webp", "WEBP_LOSSLESS": "YES", **TILES},
    "lzma": {"compress": "lzma", **TILES},
}


def crops(data_dir: Path, folder: Path) -> None:
    """Corners of real rasters in every codec, floats with NaN among them, and real files as they are."""
    scene = next(path for path in sorted((data_dir / "raster").glob("*.tif")))
    with rasterio.open(scene) as source:
        x_CHW = source.read([1, 2, 3], window=((900, 980), (900, 990)))
    x_HWC = np.moveaxis(x_CHW, 0, 2)
    for name, options in VARIANTS.items():
        write_gdal(folder / f"{name}.tif", x_HWC, **({"interleave": "pixel", "nodata": 3} | options))
    reflectance = (x_HWC / 255).astype(np.float32)
    reflectance[5:9, 7:20] = np.nan
    for codec in ("lzw", "deflate", "zstd"):
        write_gdal(
            folder / f"{codec}-float.tif", reflectance, compress=codec, predictor=3, interleave="pixel"
        )
    write_gdal(folder / "lerc-float.tif", reflectance, compress="lerc", interleave="pixel", **TILES)
    small = sorted((data_dir / "seg_wildfire_s2").rglob("*.tif"), key=lambda path: path.stat().st_size)
    real = sorted((data_dir / "raster" / "variety").glob("*.tif"), key=lambda path: path.stat().st_size)
    photos = sorted((data_dir / "lesion").rglob("*.jpg"), key=lambda path: path.stat().st_size)
    for path in [*small[:2], *small[-1:], *real[:3], *photos[:4]]:
        shutil.copy(path, folder / path.name)


@pytest.mark.data
@pytest.mark.cgroup
def test_broken_copies_of_real_files_are_read_or_refused(data_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "honest"
    folder.mkdir()
    crops(data_dir, folder)
    command = [sys.executable, "-m", "tests.data.readers.fuzz_child", str(folder), str(COUNT), str(SEED)]
    ended = run_in_group(command, LIMIT_BYTES, 250, PYTHONPATH=os.pathsep.join(sys.path), OMP_NUM_THREADS="1")
    assert ended.returncode == 0, ended.output
    assert ended.oom_kills == 0
    found = json.loads(ended.output.splitlines()[-1])
    ends = found["ends"]
    assert ends["read"] + ends["refused"] + ends.get("too much", 0) == COUNT
    assert min(ends["read"], ends["refused"]) > COUNT // 10
    assert ends.get("too much", 0) < COUNT // 20
    assert found["slowest_seconds"] < 5

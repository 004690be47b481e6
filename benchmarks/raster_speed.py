"""The whole of `predict` beside the same forwards alone: what reading, joining and writing cost."""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from tests.data.sets import write_tiff

from benchmarks.children import GIB, mib, module
from benchmarks.models import quick_run
from benchmarks.rows import Row

ROUNDS = 5
CASES = (("3000×4000×3 uint8", 3000, 4000, 3, "uint8"), ("4096²×5 uint16", 4096, 4096, 5, "uint16"))


def row() -> Row:
    """Two rasters, interleaved rounds in one process each."""
    figures, worst, most = [], 0.0, 0
    for label, height, width, bands, dtype in CASES:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            run = quick_run(folder, bands, dtype)
            raster = _raster(folder / "raster.tif", height, width, bands, dtype)
            found = module("raster_speed", 2 * GIB, run, raster, folder / "map.tif")
        ratios = [a / b for a, b in zip(found["whole"], found["forwards"], strict=True)]
        ratio = statistics.median(ratios)
        worst, most = max(worst, ratio), max(most, found["above"])
        figures += [
            (f"{label}: whole ÷ forwards alone", f"{ratio:.3f} ({min(ratios):.3f}–{max(ratios):.3f})"),
            (f"{label}: seconds, whole and forwards", f"{statistics.median(found['whole']):.2f}, "
             f"{statistics.median(found['forwards']):.2f}"),
            (f"{label}: peak above the loaded model", mib(found["above"])),
            (f"{label}: tiles", f"{found['side']} px, {found['share']:.2f} forwards a pixel"),
        ]  # fmt: skip
    return Row(
        "whole predict (decode, tiles, model, mosaic, COG with overviews) beside the same forwards alone",
        "≤ 1.15 × the forwards (best peers 1.26 to 1.33, MONAI 2.0), ≤ 350 MB above the model's base",
        worst <= 1.15 and most <= 350e6,
        figures,
    )


def _raster(path: Path, height: int, width: int, bands: int, dtype: str) -> Path:
    draw = np.random.default_rng(0)
    top = 200 if dtype == "uint8" else 4000
    x = draw.integers(top // 4, top, (height // 8 + 1, width // 8 + 1, bands)).repeat(8, 0).repeat(8, 1)
    x = x[:height, :width] + draw.integers(0, 9, (height, width, bands))
    options = {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate", "predictor": 2}
    return write_tiff(path, x.astype(dtype), **options)


def measure(run: Path, raster: Path, out: Path) -> dict[str, object]:
    """Rounds of both ways in this process, after one of each to warm up."""
    from caudal.runs.machine import settle

    settle()
    from caudal.core.units import Bytes
    from caudal.data.readers import reader_for
    from caudal.inference.encode import Output
    from caudal.inference.mosaic import Georeference
    from caudal.inference.predict import predict_raster
    from caudal.memory.meters import PeakMeter, charged_bytes
    from caudal.runs.loaded import load_model

    loaded = load_model(run, "cpu")
    base, meter = charged_bytes(), PeakMeter()
    tiling, _needed = loaded.tiling(Bytes(2 * GIB), raster)
    forward = loaded.forward(0)
    header = reader_for(raster).header(raster)
    grid = tiling.grid(header)

    def whole() -> float:
        began = time.perf_counter()
        with reader_for(raster).open(raster) as source:
            predict_raster(
                source,
                forward,
                out,
                grid,
                Output(("0", "1")),
                threads=2,
                overlap=False,
                georeference=Georeference.of(raster),
            )
        return time.perf_counter() - began

    def forwards() -> float:
        tiles = [(tile.read.height, tile.read.width) for tile in grid]
        x = {size: np.ones((1, *size, header.bands), header.dtype) for size in set(tiles)}
        began = time.perf_counter()
        for size in tiles:
            forward(x[size], None)
        return time.perf_counter() - began

    pairs = [(whole(), forwards()) for _round in range(ROUNDS + 1)][1:]
    read = sum(tile.read.area_px for tile in grid)
    return {
        "whole": [a for a, _b in pairs],
        "forwards": [b for _a, b in pairs],
        "above": int(meter.peak() - base),
        "side": tiling.side_px,
        "share": read / (header.height * header.width),
    }


if __name__ == "__main__":
    print(json.dumps(measure(*map(Path, sys.argv[1:4]))))

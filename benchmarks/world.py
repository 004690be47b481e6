"""A raster of 36000 × 18000 pixels in 1 GiB, and what a raster of 2000 × 2000 takes beside it."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

import rasterio
from rio_cogeo.cogeo import cog_validate

from benchmarks.children import GIB, MIB, caudal, data_dir, error_of, mib
from benchmarks.models import quick_run
from benchmarks.rows import Row

ROUNDS = 3


def row() -> Row:
    """Predict the whole, and a corner of it."""
    world = data_dir() / "raster" / "variety" / "cog_world.tif"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = quick_run(folder, 1, "uint8")
        corner = _corner(world, folder / "corner.tif")
        # Two equal predictions differ by some percent, by how the heap happens to be packed.
        small, large = [], []
        for _round in range(ROUNDS):
            for runs, path, out in ((small, corner, "small.tif"), (large, world, "large.tif")):
                runs.append(caudal(GIB, "predict", run, path, "-o", folder / out, "--ram", "700MiB"))
        valid, errors, _warnings = cog_validate(str(folder / "large.tif"))
        with rasterio.open(world) as a, rasterio.open(folder / "large.tif") as b:
            same = (a.shape, a.crs, a.transform) == (b.shape, b.crs, b.transform)
    peaks = [result["peak_bytes"]["ram"] for result, _ended in large]
    corners = [result["peak_bytes"]["ram"] for result, _ended in small]
    last, charged = large[-1][0], max(ended.peak_charged for _result, ended in large)
    peak, predicted = statistics.median(peaks), last["predicted_bytes"]["ram"]
    growth = peak / statistics.median(corners) - 1
    covered = min(result["metrics"]["coverage"] for result, _ended in large)
    kills = sum(ended.oom_kills for _result, ended in large)
    good = valid and same and covered == 1 and growth <= 0.05 and charged <= 700 * MIB
    return Row(
        "predict over 36000×18000 (648 Mpx) in a real 1 GiB group, default model",
        "≤ 700 MiB charged, ≤ 5 % growth from 2000², a valid COG on the same grid, all valid pixels covered",
        good and not kills,
        [
            ("charged to the group at the most, kills", f"{mib(charged)}, {kills}"),
            ("peak, predicted", f"{_span(peaks)}, {mib(predicted)} ({error_of(predicted, peak)})"),
            ("peak of 2000×2000", f"{_span(corners)}; growth of the medians {growth:+.1%}"),
            ("valid COG, same size, CRS and transform", f"{valid} {errors}, {same}"),
            ("valid pixels covered", f"{covered:.3%}"),
            ("time", f"{last['seconds']:.0f} s, {last['metrics']['megapixels_per_second']:.2f} Mpx/s"),
        ],
    )


def _span(values: list[int]) -> str:
    return f"{mib(statistics.median(values))} ({mib(min(values))}–{mib(max(values))})"


def _corner(world: Path, out: Path) -> Path:
    with rasterio.open(world) as source:
        window = rasterio.windows.Window(18000, 4000, 2000, 2000)
        profile = source.profile | {"height": 2000, "width": 2000, "driver": "GTiff"}
        with rasterio.open(out, "w", **profile) as file:
            file.write(source.read(window=window))
    return out

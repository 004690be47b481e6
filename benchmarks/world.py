"""A raster of 36000 × 18000 pixels in 1 GiB, and what a raster of 2000 × 2000 takes beside it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import rasterio
from rio_cogeo.cogeo import cog_validate

from benchmarks.children import GIB, MIB, caudal, data_dir, error_of, mib
from benchmarks.models import quick_run
from benchmarks.rows import Row


def row() -> Row:
    """Predict the whole, and a corner of it."""
    world = data_dir() / "raster" / "variety" / "cog_world.tif"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = quick_run(folder, 1, "uint8")
        corner = _corner(world, folder / "corner.tif")
        small, _ended = caudal(GIB, "predict", run, corner, "-o", folder / "small.tif", "--ram", "700MiB")
        large, ended = caudal(GIB, "predict", run, world, "-o", folder / "large.tif", "--ram", "700MiB")
        valid, errors, _warnings = cog_validate(str(folder / "large.tif"))
        with rasterio.open(world) as a, rasterio.open(folder / "large.tif") as b:
            same = (a.shape, a.crs, a.transform) == (b.shape, b.crs, b.transform)
    peak, predicted = large["peak_bytes"]["ram"], large["predicted_bytes"]["ram"]
    growth = peak / small["peak_bytes"]["ram"] - 1
    covered = large["metrics"]["coverage"]
    good = valid and same and covered == 1 and growth <= 0.05 and ended.peak_charged <= 700 * MIB
    return Row(
        "predict over 36000×18000 (648 Mpx) in a real 1 GiB group, default model",
        "≤ 700 MiB charged, ≤ 5 % growth from 2000², a valid COG on the same grid, all valid pixels covered",
        good and ended.oom_kills == 0,
        [
            ("charged to the group, kills", f"{mib(ended.peak_charged)}, {ended.oom_kills}"),
            ("peak, predicted", f"{mib(peak)}, {mib(predicted)} ({error_of(predicted, peak)})"),
            ("peak of 2000×2000", f"{mib(small['peak_bytes']['ram'])}; growth {growth:+.1%}"),
            ("valid COG, same size, CRS and transform", f"{valid} {errors}, {same}"),
            ("valid pixels covered", f"{covered:.3%}"),
            ("time", f"{large['seconds']:.0f} s, {large['metrics']['megapixels_per_second']:.2f} Mpx/s"),
        ],
    )


def _corner(world: Path, out: Path) -> Path:
    with rasterio.open(world) as source:
        window = rasterio.windows.Window(18000, 4000, 2000, 2000)
        profile = source.profile | {"height": 2000, "width": 2000, "driver": "GTiff"}
        with rasterio.open(out, "w", **profile) as file:
            file.write(source.read(window=window))
    return out

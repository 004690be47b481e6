"""The contract under the kernel's own hand: in a real control group the budget holds, or it is refused."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from tests.cgroups import run_in_group
from tests.data.sets import write_tiff

MIB = 2**20
CAUDAL = [sys.executable, "-m", "caudal"]


def last(output: str) -> dict:  # type: ignore[type-arg]
    return json.loads(next(line for line in reversed(output.splitlines()) if line.startswith("{")))


def large_set(folder: Path, images: int) -> Path:
    """Rasters of 4096 × 4096 × 8 uint16, 256 MiB each once decoded, small on disk."""
    draw = np.random.default_rng(0)
    tile = draw.integers(500, 900, (512, 512, 8)).astype(np.uint16)
    mask = np.zeros((512, 512), np.uint8)
    mask[100:300, 150:400] = 1
    tile[mask == 1] += 700
    profile = {
        "driver": "GTiff", "height": 4096, "width": 4096, "tiled": True, "blockxsize": 512, "blockysize": 512,
        "compress": "zstd", "zstd_level": 1, "crs": "EPSG:32630", "interleave": "pixel",
    }  # fmt: skip
    first = folder / "images" / "a000.tif"
    for kind, source in (("images", np.moveaxis(tile, 2, 0)), ("masks", mask[None])):
        (folder / kind).mkdir(parents=True)
        path = folder / kind / first.name
        with rasterio.open(path, "w", count=len(source), dtype=source.dtype, **profile) as file:
            for row in range(0, 4096, 512):
                for col in range(0, 4096, 512):
                    file.write(source, window=rasterio.windows.Window(col, row, 512, 512))
        data = path.read_bytes()
        for number in range(1, images):
            # Of other lengths, so that they are no copies of each other.
            (folder / kind / f"a{number:03d}.tif").write_bytes(data + b"\0" * number)
    return folder


@pytest.mark.slow
@pytest.mark.cgroup
def test_a_set_eight_times_its_budget_trains_inside_it(tmp_path: Path) -> None:
    budget = 448 * MIB
    folder = large_set(tmp_path / "set", 14)  # 3.5 GiB
    spec = tmp_path / "spec.toml"
    spec.write_text(
        f"""
        task = "segmentation"
        [data]
        images = ["{folder}"]
        density = 0.02
        [model.config]
        width = 8
        depth = 2
        [training]
        steps = 20
        batch = 8
        validate_every = 20
        """
    )
    ended = run_in_group(
        [*CAUDAL, "train", str(spec), "-o", str(tmp_path / "run"), "--ram", str(budget), "--json"], budget
    )
    assert (ended.returncode, ended.oom_kills) == (0, 0), ended.output
    result = last(ended.output)
    assert ended.peak_charged <= budget
    # Equal runs differ by a tenth, by how the heap is packed, and where others use the processors by more:
    # then decoding is ahead of scoring at other times than it was when it was rehearsed.
    assert abs(result["predicted_bytes"]["ram"] / result["peak_bytes"]["ram"] - 1) <= 0.2


@pytest.mark.cgroup
def test_what_cannot_fit_is_refused_and_not_killed(tiny_set: Path, tmp_path: Path) -> None:
    for budget in (140 * MIB, 176 * MIB):
        ended = run_in_group(
            [*CAUDAL, "plan", "segmentation", str(tiny_set), "--ram", str(budget), "--json"], budget
        )
        assert ended.returncode == 3, ended.output
        assert last(ended.output)["error"]["code"] == "does_not_fit"


@pytest.mark.cgroup
def test_the_default_budget_is_a_share_of_the_group_not_of_the_machine(tiny_set: Path) -> None:
    ended = run_in_group([*CAUDAL, "plan", "segmentation", str(tiny_set), "--json"], 900 * MIB)
    assert ended.returncode == 0, ended.output
    assert last(ended.output)["budget_bytes"]["ram"] == int(900 * MIB * 0.8)


@pytest.mark.slow
@pytest.mark.cgroup
def test_memory_does_not_grow_with_the_raster(tiny_run: Path, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    block = draw.integers(200, 900, (500, 500, 3)).astype(np.uint16)
    peaks = []
    # Two equal predictions differ by up to 10 %, by how the heap happens to be packed; holding one byte a
    # pixel of the large raster would add 20 %.
    for name, repeats in (("small", (4, 4)), ("small", (4, 4)), ("large", (10, 24))):
        path = write_tiff(
            tmp_path / f"{name}.tif", np.tile(block, (*repeats, 1)),
            tiled=True, blockxsize=256, blockysize=256, compress="zstd", zstd_level=1,
        )  # fmt: skip
        ended = run_in_group(
            [*CAUDAL, "predict", str(tiny_run), str(path), "-o", str(tmp_path / f"{name}-map.tif"),
             "--ram", "700MiB", "--json"],
            1024 * MIB,
        )  # fmt: skip
        assert ended.returncode == 0, ended.output
        peaks.append(last(ended.output)["peak_bytes"]["ram"])
    assert peaks[2] <= 1.1 * max(peaks[:2])

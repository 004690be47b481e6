"""Memory does not grow with the raster, and is what `working_bytes` says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
CHILD = "tests.inference.memory_child"


def measure(*settings: Any) -> tuple[int, int, int]:
    """Bytes before, bytes predicted, peak bytes of a process that maps a raster."""
    command = [sys.executable, "-W", "ignore", "-m", CHILD, json.dumps(settings)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    before, predicted, peak = json.loads(done.stdout)
    return before, predicted, peak


@pytest.mark.parametrize("mode", ["exact", "blend"])
def test_memory_does_not_grow_with_the_raster(mode: str) -> None:
    grid = [512, 32, 16, mode]
    small = measure(2000, 2000, 3, 1, grid, 2, "classes")[2]
    large = measure(3000, 40_000, 3, 1, grid, 2, "classes")[2]
    # Thirty times the pixels. Beside the strip of `blend`, GDAL's caches fill up, to a bound of their own.
    strip = 64 * 38_000 * 2 if mode == "blend" else 0
    assert large - small < strip + 16 * 2**20


@pytest.mark.parametrize(
    "settings",
    [
        (6000, 6000, 3, 1, [1024, 64, 16, "blend"], 2, "classes"),
        (3000, 30_000, 3, 1, [1024, 64, 16, "blend"], 2, "classes"),
        (6000, 6000, 3, 6, [1024, 64, 16, "blend"], 2, "classes"),
        (4000, 6000, 4, 4, [1024, 64, 16, "exact"], 2, "scores"),
        (6000, 6000, 8, 2, [1024, 64, 16, "exact"], 4, "classes"),
        (5000, 5000, 4, 3, [512, 64, 16, "blend"], 8, "classes"),
    ],
)
def test_working_bytes_are_what_is_held(settings: Any) -> None:
    before, predicted, peak = measure(*settings)
    assert peak - before == pytest.approx(predicted, rel=0.25)

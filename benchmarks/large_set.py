"""A training set eight times larger than its RAM budget, in a real group of that size."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.memory.test_contract import large_set

from benchmarks.children import MIB, caudal, error_of, mib
from benchmarks.rows import Row

BUDGET = 512 * MIB


def row() -> Row:
    """Default model and patch; 4 GiB of rasters."""
    with tempfile.TemporaryDirectory() as name:
        folder = large_set(Path(name) / "set", 16)
        spec = Path(name) / "spec.toml"
        spec.write_text(f'task = "segmentation"\n[data]\nimages = ["{folder}"]\n[training]\nsteps = 150\n')
        result, ended = caudal(BUDGET, "train", spec, "-o", Path(name) / "run", "--ram", BUDGET)
    peak, predicted = result["peak_bytes"]["ram"], result["predicted_bytes"]["ram"]
    return Row(
        "16 rasters of 4096×4096×8 uint16 (4 GiB decoded), --ram 512MiB in a real 512 MiB group",
        "peak charged bytes ≤ budget, no kill, prediction within 15 %",
        ended.oom_kills == 0 and ended.peak_charged <= BUDGET and abs(predicted / peak - 1) <= 0.15,
        [
            ("charged to the group, kills", f"{mib(ended.peak_charged)}, {ended.oom_kills}"),
            ("peak, predicted", f"{mib(peak)}, {mib(predicted)} ({error_of(predicted, peak)})"),
            ("time, samples/s, stall", f"{result['seconds']:.0f} s, {result['samples_per_second']:.0f}, "
             f"{result['stall']:.1%}"),
            ("levers", str(result["levers"])),
        ],
    )  # fmt: skip

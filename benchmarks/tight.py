"""What a smaller budget costs: training speed at three quarters, half and a quarter of the free peak."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from tests.cgroups import run_in_group
from tests.data.sets import blob_set

from benchmarks.children import CAUDAL, GIB, MIB, mib
from benchmarks.rows import Row

ROUNDS = 3
TARGETS = {0.75: 0.9, 0.5: 0.7, 0.25: 0.4}
DOES_NOT_FIT = 3


def row() -> Row:
    """A U-Net whose free step takes a gibibyte and more, in groups of its budgets, in turns."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spec = _spec(folder)
        free = _run(folder, spec, "free", 8 * GIB)
        peak = free["peak_bytes"]["ram"]
        rates: dict[float, list[float]] = {share: [] for share in (1.0, *TARGETS)}
        found: dict[float, dict[str, Any]] = {}
        for number in range(ROUNDS):
            for share in rates:
                budget = 8 * GIB if share == 1.0 else int(share * peak) // MIB * MIB
                result = _run(folder, spec, f"{number} {share}", budget)
                rates[share].append(result.get("samples_per_second", 0.0))
                found[share] = result
    ratios = {
        share: median(mine / whole for mine, whole in zip(rates[share], rates[1.0], strict=True))
        for share in TARGETS
    }
    figures = [("free", f"{mib(peak)} at the most, {median(rates[1.0]):.0f} samples/s")]
    for share, target in TARGETS.items():
        result = found[share]
        if "error" in result:
            figures.append((f"at {share:.0%} ({mib(share * peak)})", result["error"]["message"]))
            continue
        taken = f"{mib(result['peak_bytes']['ram'])} taken, {result['kills']} kills"
        levers = ", ".join(f"{lever} {value}" for lever, value in result["levers"].items())
        figures.append(
            (f"at {share:.0%} ({mib(share * peak)})",
             f"{ratios[share]:.0%} of the speed (target {target:.0%}), {taken}; {levers}")
        )  # fmt: skip
    return Row(
        "training of a U-Net of width 48, patches of 192², batches of 16, in real groups of the budget",
        "≥ 90 / 70 / 40 % of the free samples/s at 75 / 50 / 25 % of the free peak, no kill",
        all(ratios[share] >= target for share, target in TARGETS.items())
        and not any(result.get("kills") for result in found.values()),
        figures,
    )


def _spec(folder: Path) -> Path:
    data = blob_set(folder / "set", [(512, 512)] * 10)
    path = folder / "spec.toml"
    path.write_text(
        f"""
        task = "segmentation"
        [data]
        images = [{json.dumps(str(data))}]
        patch_px = 192
        [model.config]
        width = 48
        depth = 3
        stem = 1
        [training]
        steps = 8
        batch = 16
        validate_every = 8
        """
    )
    return path


def _run(folder: Path, spec: Path, name: str, budget: int) -> dict[str, Any]:
    words = ["train", str(spec), "-o", str(folder / name), "--ram", str(budget), "--json"]
    limit = max(budget, 256 * MIB)
    ended = run_in_group([*CAUDAL, *words], limit, 900, XDG_CACHE_HOME=str(folder / "cache"))
    assert ended.returncode in (0, DOES_NOT_FIT), f"exit {ended.returncode}\n{ended.output}"
    result: dict[str, Any] = json.loads([s for s in ended.output.splitlines() if s.startswith("{")][-1])
    return result | {"kills": ended.oom_kills}

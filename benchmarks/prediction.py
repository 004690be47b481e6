"""What plans promise beside what runs take: random models, data and budgets, in real groups of the budget."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from tests.cgroups import run_in_group
from tests.data.sets import blob_set

from benchmarks.children import CAUDAL, MIB
from benchmarks.rows import Row

RUNS = int(os.environ.get("CAUDAL_PREDICTION_RUNS", "60"))
DOES_NOT_FIT = 3
_BANDS = (3, 5, 8)


@dataclass
class Outcome:
    """One run: bytes promised, taken by its own meter and charged to its group, and whether it was killed."""

    draw: dict[str, Any]
    budget: int
    predicted: int = 0
    peak: int = 0
    charged: int = 0
    kills: int = 0
    refused: bool = False
    samples_per_second: float = 0.0

    @property
    def error(self) -> float:
        """Promised above what was taken."""
        return self.predicted / self.peak - 1


def row() -> Row:
    """Seeded draws, one after the other; runs of one kind teach the next ones' margin, as a user's do."""
    random = np.random.default_rng(4)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sets = {bands: blob_set(folder / f"set {bands}", [(400, 500)] * 10, bands=bands) for bands in _BANDS}
        outcomes = [_run(folder / f"{k}", sets, random, folder / "cache") for k in range(RUNS)]
    done = [one for one in outcomes if not one.refused]
    errors = sorted(abs(one.error) for one in done)
    under = min(one.error for one in done)
    late = [one.error for one in done[len(done) // 3 :]]  # when the margin is learned
    kills = sum(one.kills for one in outcomes)
    over = sum(one.charged > one.budget for one in outcomes)
    p95 = errors[min(len(errors) - 1, round(0.95 * len(errors)))]
    used = [one.charged / one.budget for one in done]
    return Row(
        f"{RUNS} random U-Nets, bands, patches, batches and budgets; CPU training of 12 steps and its "
        "scoring, each in a real group of its budget",
        "median error ≤ 3 %, 95 of 100 ≤ 8 %, never under by more than 2 %, no kill",
        median(errors) <= 0.03 and p95 <= 0.08 and under >= -0.02 and not kills and not over,
        [
            ("runs, refused", f"{len(outcomes)}, {len(outcomes) - len(done)}"),
            ("error, median and 95 of 100", f"{median(errors):.1%}, {p95:.1%}"),
            ("error with its sign, least to most", f"{under:+.1%} to {max(one.error for one in done):+.1%}"),
            ("of the last two thirds", f"median {median(late):+.1%}, least {min(late):+.1%}"),
            ("kills, runs above their budget", f"{kills}, {over}"),
            ("share of the budget that was charged, median", f"{median(used):.0%}"),
            ("levers", _levers(done)),
        ],
    )


def _run(folder: Path, sets: dict[int, Path], random: np.random.Generator, cache: Path) -> Outcome:
    def one_of(*values: Any) -> Any:
        return values[int(random.integers(len(values)))]

    draw = {
        "bands": one_of(*_BANDS), "width": one_of(8, 16, 24, 32), "depth": one_of(2, 3, 4),
        "stem": one_of(1, 2), "batch": one_of(8, 16, 32),
        "patch": one_of(64, 96, 128), "average": one_of(0, 10),
    }  # fmt: skip
    budget = int(random.uniform(300, 1100)) * MIB
    folder.mkdir()
    spec = folder / "spec.toml"
    spec.write_text(
        f"""
        task = "segmentation"
        [data]
        images = [{json.dumps(str(sets[draw["bands"]]))}]
        patch_px = {draw["patch"]}
        [model.config]
        width = {draw["width"]}
        depth = {draw["depth"]}
        stem = {draw["stem"]}
        [training]
        steps = 12
        batch = {draw["batch"]}
        average = {draw["average"]}
        validate_every = 12
        """
    )
    words = ["train", str(spec), "-o", str(folder / "run"), "--ram", str(budget), "--json"]
    ended = run_in_group([*CAUDAL, *words], budget, 600, XDG_CACHE_HOME=str(cache))
    outcome = Outcome(draw | {"levers": {}}, budget, charged=ended.peak_charged, kills=ended.oom_kills)
    if ended.returncode == DOES_NOT_FIT:
        outcome.refused, outcome.charged = True, 0
        return outcome
    assert ended.returncode == 0, f"{draw}: exit {ended.returncode}\n{ended.output}"
    result = json.loads([line for line in ended.output.splitlines() if line.startswith("{")][-1])
    outcome.predicted, outcome.peak = result["predicted_bytes"]["ram"], result["peak_bytes"]["ram"]
    outcome.draw["levers"] = result["levers"]
    outcome.samples_per_second = result["samples_per_second"]
    return outcome


def _levers(done: list[Outcome]) -> str:
    """How often a lever stood elsewhere than where it costs nothing."""
    smaller = sum(int(one.draw["levers"]["micro_batch"]) < one.draw["batch"] for one in done)
    names = ("prefetch", "threads", "heap", "checkpointing", "optimizer_state", "patch")
    used = ", ".join(f"{name} {sum(name in one.draw['levers'] for one in done)}" for name in names)
    return f"micro-batch below the batch {smaller}, {used} of {len(done)}"

"""What a smaller budget costs: training speed at three quarters, half and a quarter of the free peak.

Free is the plain loop in torch: the whole batch at once, the same network, numbers and optimizer. Caudal's
own peak without a budget is below half of that, because it takes no larger parts than make it faster; its
shares are shown too, as far as they hold the libraries at all.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from tests.cgroups import run_in_group
from tests.data.sets import blob_set

from benchmarks.children import CAUDAL, GIB, MIB, last_object, mib
from benchmarks.rows import Row

ROUNDS = 3
TARGETS = {0.75: 0.9, 0.5: 0.7, 0.25: 0.4}
DOES_NOT_FIT = 3
BATCH, SIDE, WIDTH, DEPTH = 16, 192, 48, 3
_PLAIN_STEPS = 8


def row() -> Row:
    """A U-Net whose plain step takes two gibibytes, in groups of its budgets, in turns."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spec = _spec(folder)
        plain, rates, found = [_plain()], dict[float, list[float]](), dict[float, dict[str, Any]]()
        peak = plain[0]["charged"]
        for number in range(ROUNDS):
            for share in TARGETS:
                found[share] = _run(folder, spec, f"{number} {share}", int(share * peak))
                rates.setdefault(share, []).append(found[share].get("samples_per_second", 0.0))
            plain.append(_plain())
        own = _run(folder, spec, "own", 8 * GIB)
        ours = own["peak_bytes"]["ram"]
        of_own = {share: _run(folder, spec, f"own {share}", int(share * ours)) for share in TARGETS}
    beside = [(a["rate"] + b["rate"]) / 2 for a, b in pairwise(plain)]
    ratios = {
        share: median(mine / whole for mine, whole in zip(rates[share], beside, strict=True))
        for share in TARGETS
    }
    return Row(
        f"training of a U-Net of width {WIDTH}, patches of {SIDE}², batches of {BATCH}, in real groups of "
        "the budget, which is a share of what the plain loop in torch takes",
        "≥ 90 / 70 / 40 % of the free samples/s at 75 / 50 / 25 % of the free peak, no kill",
        all(ratios[share] >= target for share, target in TARGETS.items())
        and not any(result.get("kills") for result in found.values()),
        [
            ("the plain loop", f"{mib(peak)}, {median(one['rate'] for one in plain):.1f} samples/s"),
            *((_place(share, peak), f"{ratios[share]:.0%} of its speed (target {target:.0%}), "
               f"{_words(found[share])}") for share, target in TARGETS.items()),
            ("Caudal without a budget", f"{mib(ours)}, {own['samples_per_second']:.1f} samples/s"),
            *((_place(share, ours), _words(result, own["samples_per_second"]))
              for share, result in of_own.items()),
        ],
    )  # fmt: skip


def _place(share: float, peak: int) -> str:
    return f"at {share:.0%} of that ({mib(share * peak)})"


def _words(result: dict[str, Any], whole: float = 0.0) -> str:
    if "error" in result:
        return str(result["error"]["message"])
    speed = f"{result['samples_per_second'] / whole:.0%} of that speed, " if whole else ""
    levers = ", ".join(f"{lever} {value}" for lever, value in result["levers"].items())
    return f"{speed}{mib(result['peak_bytes']['ram'])} taken, {result['kills']} kills; {levers}"


def _spec(folder: Path) -> Path:
    data = blob_set(folder / "set", [(512, 512)] * 10)
    path = folder / "spec.toml"
    path.write_text(
        f"""
        task = "segmentation"
        [data]
        images = [{json.dumps(str(data))}]
        patch_px = {SIDE}
        [model.config]
        width = {WIDTH}
        depth = {DEPTH}
        stem = 1
        [training]
        steps = 8
        batch = {BATCH}
        validate_every = 8
        """
    )
    return path


def _run(folder: Path, spec: Path, name: str, budget: int) -> dict[str, Any]:
    budget = budget // MIB * MIB
    words = ["train", str(spec), "-o", str(folder / name), "--ram", str(budget), "--json"]
    limit = max(budget, 256 * MIB)
    ended = run_in_group([*CAUDAL, *words], limit, 900, XDG_CACHE_HOME=str(folder / "cache"))
    assert ended.returncode in (0, DOES_NOT_FIT), f"exit {ended.returncode}\n{ended.output}"
    result: dict[str, Any] = json.loads([s for s in ended.output.splitlines() if s.startswith("{")][-1])
    return result | {"kills": ended.oom_kills}


def _plain() -> dict[str, Any]:
    ended = run_in_group([sys.executable, "-m", "benchmarks.tight"], 8 * GIB, 900)
    return last_object(ended) | {"charged": ended.peak_charged}


def plain_loop() -> float:
    """Samples a second of the plain loop, its data in memory and ready."""
    import torch
    import torch.nn.functional as F

    from caudal.models.unet import UNet, UNetConfig

    torch.manual_seed(0)
    model = UNet(3, 2, UNetConfig(width=WIDTH, depth=DEPTH, stem=1)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    x_BCHW = torch.randn(BATCH, 3, SIDE, SIDE).contiguous(memory_format=torch.channels_last)
    y_BHW = (x_BCHW[:, 0] > 0).long()
    seconds = []
    for _step in range(_PLAIN_STEPS):
        began = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16):
            scores_BKHW = model(x_BCHW)
        loss = F.cross_entropy(scores_BKHW.float(), y_BHW)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        seconds.append(time.perf_counter() - began)
    return BATCH / median(seconds[2:])


if __name__ == "__main__":
    print(json.dumps({"rate": plain_loop()}))

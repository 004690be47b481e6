"""Loading 1.5 GB of weights beside others' ways: what is charged above the libraries, and how long it takes.

Runs itself as `python weights_load.py WAY FOLDER` for each way, in that way's environment; such a child
imports nothing of Caudal but what it measures. Files are dropped from the page cache before each.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

MIB = 2**20
ROUNDS = int(os.environ.get("CAUDAL_LOAD_ROUNDS", "5"))
BESIDE = 64 * MIB
WAYS = {
    "caudal, fp32": "large/model.safetensors",
    "caudal, as bf16": "large/model.safetensors",
    "safetensors, fp32": "large.safetensors",
    "torch.load, fp32": "large.pt",
    "torch.load, as bf16": "large.pt",
    "accelerate, as bf16": "large.safetensors",
}
"""Each way and the file that it reads."""


def row() -> Any:
    """Every way `ROUNDS` times in turns, then once in a group that holds no second copy."""
    from benchmarks.kill_matrix import make_all
    from benchmarks.rows import Row

    folder = make_all()
    alone, seconds, charged = list[float](), {way: list[float]() for way in WAYS}, dict[str, int]()
    base = {way: _run(way, folder, libraries_only=True)[1] for way in WAYS}
    for _round in range(ROUNDS):
        alone.append(_reading(folder / WAYS["caudal, fp32"]))
        for way in WAYS:
            found, peak, _kills = _run(way, folder)
            seconds[way].append(found)
            charged[way] = max(charged.get(way, 0), peak - base[way])
    size = (folder / WAYS["caudal, fp32"]).stat().st_size
    figures, met = [("reading the file alone", f"{median(alone):.2f} s, {size / MIB:.0f} MiB")], True
    for way in WAYS:
        target = 0 if way == "caudal, fp32" else size // 2 if "bf16" in way else size
        kills = _run(way, folder, limit=base[way] + target + BESIDE)[2]
        ratio = median(a / b for a, b in zip(seconds[way], alone, strict=True))
        figures.append(
            (
                way,
                f"{charged[way] / MIB:.0f} MiB above its libraries ({base[way] / MIB:.0f}), "
                f"{median(seconds[way]):.2f} s, {ratio:.2f} × reading; in a group of its libraries, "
                f"{target / MIB:.0f} and 64 MiB: {'killed' if kills else 'done'}",
            )
        )
        if way.startswith("caudal"):
            met &= ratio <= 1.2 and charged[way] <= target + BESIDE and not kills
    return Row(
        "1.5 GB of fp32 weights from a file that is not in the page cache, every page of them touched "
        f"afterwards; {ROUNDS} rounds in turns",
        "≤ the bytes of the target type (none where the file is mapped) + 64 MiB, ≤ 1.2 × reading the file",
        met,
        figures,
    )


def _run(way: str, folder: Path, limit: int = 6 * 1024 * MIB, libraries_only: bool = False) -> Any:
    """Seconds of a load, the most that its group was charged, and kills in it."""
    from tests.cgroups import run_in_group

    from benchmarks.peers.setup import python_of

    _drop(folder / WAYS[way])
    python = sys.executable if way.startswith("caudal") else str(python_of("memory"))
    command = [python, str(Path(__file__)), way, "" if libraries_only else str(folder)]
    ended = run_in_group(command, limit, 300, **({} if way.startswith("caudal") else {"PYTHONPATH": ""}))
    assert ended.returncode == 0 or ended.oom_kills, ended.output
    found = json.loads(ended.output.splitlines()[-1])["seconds"] if ended.returncode == 0 else float("nan")
    return found, ended.peak_charged, ended.oom_kills


def _reading(path: Path) -> float:
    _drop(path)
    began = time.perf_counter()
    with path.open("rb", buffering=0) as file:
        buffer = memoryview(bytearray(4 * MIB))
        while file.readinto(buffer):
            pass
    return time.perf_counter() - began


def _drop(path: Path) -> None:
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def load(way: str) -> Any:
    """A function that loads a folder's weights that way; what it needs is imported."""
    import torch

    if way.startswith("caudal"):
        from caudal.models import weights
        from caudal.models.unet import UNet  # noqa: F401 - before the clock

        dtype = torch.bfloat16 if "bf16" in way else None
        return lambda folder: weights.load(folder / "large", dtype)[0].state_dict()
    if way.startswith("safetensors"):
        from safetensors.torch import load_file

        return lambda folder: load_file(folder / "large.safetensors")
    from memory_peers import large

    if way.startswith("accelerate"):
        from accelerate import init_empty_weights, load_checkpoint_and_dispatch

        def dispatched(folder: Path) -> Any:
            with init_empty_weights():
                model = large()
            path = str(folder / "large.safetensors")
            return load_checkpoint_and_dispatch(model, path, {"": "cpu"}, dtype=torch.bfloat16).state_dict()

        return dispatched

    def by_torch(folder: Path) -> Any:
        model = large()
        model.load_state_dict(torch.load(folder / "large.pt", weights_only=True))
        return (model.to(torch.bfloat16) if "bf16" in way else model).state_dict()

    return by_torch


def _child(way: str, folder: str) -> None:
    import torch

    sys.argv[3:] = [folder]  # where `large` looks for the shapes
    loads = load(way)
    began = time.perf_counter()
    if folder:
        for tensor in loads(Path(folder)).values():
            pages = tensor.detach().view(-1)[:: 4096 // tensor.element_size()]
            assert torch.isfinite(pages).all()
    print(json.dumps({"seconds": time.perf_counter() - began}))


if __name__ == "__main__":
    _child(*sys.argv[1:3])

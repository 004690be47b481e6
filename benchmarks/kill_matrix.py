"""Who lives at a budget, and who says why not: four jobs, ways of doing them, real groups of four sizes.

Caudal is told the group's size as its budget; nobody else can be told. A run ends well, is refused with a
sentence (exit 3), says that memory is short, or is gone without a word.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tests.cgroups import Ended, run_in_group

from benchmarks.children import GIB, MIB
from benchmarks.kept import Kept, processors_of
from benchmarks.peers.setup import python_of
from benchmarks.rows import Row
from caudal.core.events import RunKilled, read

LIMITS = (512 * MIB, GIB, 2 * GIB, 4 * GIB)
ROUNDS = int(os.environ.get("CAUDAL_KILL_ROUNDS", "3"))
OURS = int(os.environ.get("CAUDAL_KILL_OURS", str(ROUNDS)))
JOBS = {
    "train": ("seed", "workers", "lightning"),
    "sequences": ("seed", "workers"),
    "raster": ("full", "monai"),
    "weights": ("torch", "accelerate"),
}
HIGH, WIDE = 12_000, 16_000
_LIMIT_SECONDS = 1200
_ENOUGH = 100  # runs of ours to say that none is killed


@dataclass
class Cell:
    """All runs of one way of a job in groups of one size."""

    ends: Counter[str] = field(default_factory=Counter)
    charged: list[float] = field(default_factory=list)

    def add(self, end: str, charged: float) -> None:
        """One more run, and the share of the group that it was charged."""
        self.ends[end] += 1
        self.charged.append(charged)


def row() -> Row:
    """Every cell, `ROUNDS` times for others and `OURS` for us; `CAUDAL_KILL_JOBS` chooses jobs.

    Asked for more runs than are known, it makes these alone.
    """
    folder = make_all()
    chosen = os.environ.get("CAUDAL_KILL_JOBS", ",".join(JOBS)).split(",")
    ways = [(job, way, limit) for job in chosen for limit in LIMITS for way in ("caudal", *JOBS[job])]
    cells: dict[tuple[str, str, int], Cell] = {key: Cell() for key in ways}
    kept = Kept("kill_matrix")
    for known in kept.known():
        if (key := (known["job"], known["way"], known["limit"])) in cells:
            cells[key].add(known["end"], known["charged"])
    for number in range(max(OURS, ROUNDS)):  # round by round, so that whatever is cut short is even
        for key in ways:
            job, way, limit = key
            wanted = OURS if way == "caudal" else ROUNDS
            if not len(cells[key].charged) <= number < wanted:
                continue
            if way == "caudal":
                ended = _ours(job, folder, limit, number)
                end = _killed(job, folder, limit, number) or _end(ended)
            else:
                ended = _theirs(job, way, folder, limit)
                end = _end(ended)
            charged = ended.peak_charged / limit
            cells[key].add(end, charged)
            kept.add({"job": job, "way": way, "limit": limit, "end": end, "charged": charged})
            print(number, job, way, limit // MIB, end, f"{charged:.0%}", flush=True)
    ours = [cell for (_job, way, _limit), cell in cells.items() if way == "caudal"]
    bad = sum(count for cell in ours for end, count in cell.ends.items() if end not in ("done", "refused"))
    figures = [
        (f"{job}, {way}", "; ".join(_words(cells[job, way, limit], limit) for limit in LIMITS))
        for job in chosen
        for way in ("caudal", *JOBS[job])
    ]
    figures.append(
        ("processors of ours", processors_of(run for run in kept.known() if run["way"] == "caudal"))
    )
    return Row(
        f"training on 40 scenes of 713²×5, an LSTM over 1 GB of .pt files, inference over {HIGH}×{WIDE}×3, "
        "1.5 GB of weights (others load them as bfloat16, Caudal infers with them), in real groups of "
        "512 MiB, 1, 2 and 4 GiB",
        f"of {_ENOUGH} a cell Caudal is killed in no run that it accepted, and refuses with exit 3",
        not bad and all(len(cell.charged) >= _ENOUGH for cell in ours),
        figures,
    )


def _words(cell: Cell, limit: int) -> str:
    ends = ", ".join(f"{count} {end}" for end, count in cell.ends.most_common())
    return f"{limit // MIB} MiB: {ends} ({max(cell.charged):.0%})"


def _end(ended: Ended) -> str:
    if ended.returncode == 0:
        return "done"
    if ended.returncode == 3:
        return "refused"
    text = ended.output.lower()
    if ended.oom_kills and "for want of memory" in text:
        return "killed, and said why"
    if "out of memory" in text or "not enough memory" in text or "memoryerror" in text:
        return "said memory is short"
    if ended.oom_kills or ended.returncode in (-9, 137):
        return "killed without a word" if "killed" not in text else "a worker was killed"
    return f"failed ({ended.returncode})"


def _killed(job: str, folder: Path, limit: int, number: int) -> str:
    """Whether the run of ours was killed on the way, also where it went on to a good end by itself."""
    events = _out(job, folder, limit, number) / "events.jsonl"
    if not events.is_file():
        return ""
    kills = [event for event in read(events) if isinstance(event, RunKilled)]
    return f"killed {len(kills)} times, and went on" if kills else ""


def _out(job: str, folder: Path, limit: int, number: int) -> Path:
    return folder / "ours" / f"{job} {limit} {number}"


def _ours(job: str, folder: Path, limit: int, number: int) -> Ended:
    out = _out(job, folder, limit, number)
    shutil.rmtree(out, ignore_errors=True)
    out.parent.mkdir(exist_ok=True)
    words: dict[str, list[Any]] = {
        "train": ["train", folder / "train.toml", "-o", out],
        "sequences": ["train", folder / "sequences.toml", "-o", out],
        "raster": ["predict", folder / "run", folder / "raster.tif", "-o", out.with_suffix(".tif")],
        "weights": ["predict", folder / "large", folder / "small.tif", "-o", out.with_suffix(".tif")],
    }
    command = [sys.executable, "-m", "caudal", *map(str, words[job]), "--ram", str(limit)]
    return run_in_group(command, limit, _LIMIT_SECONDS)


def _theirs(job: str, way: str, folder: Path, limit: int) -> Ended:
    script = Path(__file__).with_name("memory_peers.py")
    return run_in_group(
        [str(python_of("memory")), str(script), job, way, str(folder)], limit, _LIMIT_SECONDS, PYTHONPATH=""
    )


def make_all() -> Path:
    """Sets, raster and weights, kept in the folder of the benchmarks' data."""
    folder = Kept("kill_matrix").folder
    if (folder / "made").exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    _make_scenes(folder)
    _make_sequences(folder)
    _make_raster(folder)
    _make_large(folder)
    (folder / "made").touch()
    return folder


def _make_scenes(folder: Path) -> None:
    from tests.data.sets import blob_set

    blob_set(folder / "scenes", [(713, 713)] * 40, bands=5, compress="lzw")
    text = 'task = "segmentation"\n[data]\nimages = [%s]\n[training]\nsteps = 12\n'
    (folder / "train.toml").write_text(text % json.dumps(str(folder / "scenes")))


def _make_sequences(folder: Path) -> None:
    import torch

    draw = np.random.default_rng(0)
    (folder / "sequences").mkdir()
    for k in range(400):
        steps = int(draw.integers(4000, 6000))
        x = torch.from_numpy(draw.normal(k % 2, 3, (steps, 128)).astype(np.float32))
        torch.save({"sequence": x, "label": k % 2, "id": k}, folder / "sequences" / f"{k:04d}.pt")
    (folder / "sequences.toml").write_text(
        f"""
        task = "sequence"
        [data]
        images = [{json.dumps(str(folder / "sequences"))}]
        target = "label"
        [model]
        name = "recurrent"
        config = {{ width = 64 }}
        [training]
        steps = 3
        batch = 16
        """
    )


def _make_raster(folder: Path) -> None:
    import rasterio
    from rasterio.windows import Window

    from benchmarks.models import quick_run

    draw = np.random.default_rng(1)
    profile = {"driver": "GTiff", "height": HIGH, "width": WIDE, "count": 3, "dtype": "uint8",
               "tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate"}  # fmt: skip
    with rasterio.open(folder / "raster.tif", "w", **profile) as file:
        for row in range(0, HIGH, 512):
            high = min(512, HIGH - row)
            smooth = draw.integers(0, 255, (3, high // 8 + 1, WIDE // 8)).repeat(8, 1).repeat(8, 2)[:, :high]
            file.write(smooth.astype(np.uint8), window=Window(0, row, WIDE, high))
    (folder / "quick").mkdir()
    run = quick_run(folder / "quick", 3, "uint8")
    run.rename(folder / "run")


def _make_large(folder: Path) -> None:
    import rasterio
    import torch
    from safetensors.torch import save_file

    from caudal.models import weights
    from caudal.models.unet import UNet, UNetConfig

    small = {"driver": "GTiff", "height": 256, "width": 256, "count": 3, "dtype": "uint8"}
    with rasterio.open(folder / "small.tif", "w", **small) as file:
        file.write(np.random.default_rng(2).integers(0, 255, (3, 256, 256)).astype(np.uint8))
    config = {"width": 222, "depth": 4}
    model = UNet(3, 2, UNetConfig(**config))
    card = weights.ModelCard(task="segmentation", architecture="unet", config=config, bands=3, outputs=2)
    weights.save(folder / "large", model, card)
    state = {k.replace(".", "_"): v for k, v in model.state_dict().items() if v.is_floating_point()}
    (folder / "large.json").write_text(json.dumps({name: list(value.shape) for name, value in state.items()}))
    torch.save(state, folder / "large.pt")
    save_file({name: value.contiguous() for name, value in state.items()}, folder / "large.safetensors")

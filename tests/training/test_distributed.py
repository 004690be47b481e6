"""Several processes learn what one would learn, write one run, and share one budget."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.cgroups import run_in_group

from caudal.core.events import StepDone, read
from caudal.runs.spec import RunSpec
from caudal.runs.verbs.train import train
from caudal.tasks.classification.task import Classification
from caudal.training import precision
from caudal.training.adamw import AdamW
from caudal.training.distributed import ALONE, Ranks, joined
from caudal.training.step import Stepper

WORLD, STEPS, BATCH = 2, 4, 8
MIB = 2**20


class Part:
    """A rank's share of a batch of made vectors."""

    stall_seconds = 0.0

    def __init__(self, number: int, ranks: Ranks) -> None:
        draw = np.random.default_rng(number)
        own = slice(ranks.rank, None, ranks.count)
        self.x_BF = torch.from_numpy(draw.normal(size=(BATCH, 6)).astype(np.float32))[own]
        self.y_B = torch.from_numpy(draw.integers(0, 2, BATCH))[own]
        self.size = len(self.y_B)


def learn(ranks: Ranks) -> dict[str, torch.Tensor]:
    """Weights after some steps, with statistics of each sample beside them, and the losses."""
    torch.manual_seed(5)
    model = torch.nn.Sequential(torch.nn.Linear(6, 9), torch.nn.Tanh(), torch.nn.Linear(9, 2))
    model.register_buffer("seen", torch.zeros(1))
    number = precision.choose("cpu", "fp32")

    def prepare(part: Part, chosen: slice) -> tuple[torch.Tensor, torch.Tensor]:
        model.seen += part.x_BF[chosen].mean()
        return part.x_BF[chosen], part.y_B[chosen]

    stepper = Stepper(
        model, Classification(("a", "b")), AdamW(model.parameters(), 1e-2, 0.1), number.scaler(), number,
        prepare, 4 if ranks.first else 2, 0.05, ranks=ranks,
    )  # fmt: skip
    losses = [stepper.run(Part(step, ranks), 1e-2) for step in range(STEPS)]
    return {**model.state_dict(), "losses": torch.tensor(losses)}


def child(folder: Path) -> None:
    """One of several processes; leaves what it learned in the folder."""
    with joined("cpu") as ranks:
        found = learn(ranks)
        assert ranks.any(ranks.rank == 1)
        assert not ranks.any(False)
        assert ranks.told({"of": ranks.rank}) == {"of": 0}
        save_file(found, folder / f"{ranks.rank}.safetensors")


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_two_processes_take_the_steps_of_one(tmp_path: Path) -> None:
    env = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(WORLD)}
    code = "import sys, pathlib, test_distributed as t; t.child(pathlib.Path(sys.argv[1]))"
    root = Path(__file__).parents[2]
    env["PYTHONPATH"] = os.pathsep.join((str(Path(__file__).parent), str(root)))
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], env=env | {"RANK": str(rank)})
        for rank in range(WORLD)
    ]
    assert [process.wait(120) for process in processes] == [0] * WORLD
    alone = learn(ALONE)
    both = [load_file(tmp_path / f"{rank}.safetensors") for rank in range(WORLD)]
    for name, expected in alone.items():
        assert torch.equal(both[0][name], both[1][name]), name
        if name != "seen":  # of one process it counts micro-batches
            assert torch.allclose(both[0][name], expected, rtol=1e-5, atol=1e-6), name


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    import cv2

    draw = np.random.default_rng(0)
    for number in range(48):
        label = number % 2
        folder = tmp_path / "set" / ("plain", "striped")[label]
        folder.mkdir(parents=True, exist_ok=True)
        x_HWC = draw.integers(60, 200, (40, 40, 3)).astype(np.uint8)
        x_HWC[:: 4 if label else 40] = 255
        cv2.imwrite(str(folder / f"{number}.png"), x_HWC)
    return tmp_path / "set"


def test_torchrun_trains_the_model_of_one_process_inside_one_budget(pictures: Path, tmp_path: Path) -> None:
    spec = tmp_path / "spec.toml"
    # Statistics of each picture alone: groups of pictures would be other ones in each process.
    spec.write_text(
        f"""
        task = "classification"
        [data]
        images = ["{pictures}"]
        image_px = 32
        [model]
        name = "residual"
        config = {{width = 4, depth = 1, stem = 1, group = 1}}
        [training]
        steps = 8
        batch = 8
        precision = "fp32"
        validate_every = 4
        """
    )
    one, two = tmp_path / "one", tmp_path / "two"
    command = ["-m", "caudal", "train", str(spec), "--device", "cpu", "--json", "-o"]
    train(RunSpec.from_toml(spec).model_copy(update={"device": "cpu"}), out=one)
    run = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(WORLD)]
    words = [sys.executable, *run, *command, str(two), "--ram", "1GiB"]
    ended = run_in_group(words, 1024 * MIB, OMP_NUM_THREADS="1")
    assert ended.returncode == 0, ended.output
    assert not ended.oom_kills
    result = json.loads((two / "result.json").read_text())
    assert result["budget_bytes"]["ram"] <= 1024 * MIB // WORLD
    assert result["peak_bytes"]["ram"] <= result["budget_bytes"]["ram"]
    first, second = (load_file(folder / "model" / "model.safetensors") for folder in (one, two))
    moved = 0.0
    for name, expected in first.items():
        if "running" in name or not expected.is_floating_point():
            continue
        assert torch.allclose(second[name], expected, rtol=1e-3, atol=1e-5), name
        moved = max(moved, float(expected.abs().max()))
    assert moved > 0
    events = (two / "events.jsonl").read_text().splitlines()
    steps = [json.loads(line) for line in events if '"step_done"' in line or '"StepDone"' in line]
    assert [event["samples"] for event in steps] == [8] * 8


def test_scenes_under_torchrun_give_the_losses_of_one_process(tiny_set: Path, tmp_path: Path) -> None:
    spec = tmp_path / "spec.toml"
    spec.write_text(
        f"""
        task = "segmentation"
        [data]
        images = ["{tiny_set}"]
        patch_px = 32
        [model.config]
        width = 4
        depth = 1
        group = 1
        [training]
        steps = 6
        batch = 8
        precision = "fp32"
        validate_every = 6
        """
    )
    train(RunSpec.from_toml(spec).model_copy(update={"device": "cpu"}), out=tmp_path / "one")
    words = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(WORLD),
        "-m", "caudal", "train", str(spec), "--device", "cpu", "-o", str(tmp_path / "two"), "--ram", "1GiB",
    ]  # fmt: skip
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    ended = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    one, two = (
        [event.loss for event in read(tmp_path / name / "events.jsonl") if isinstance(event, StepDone)]
        for name in ("one", "two")
    )
    assert len(one) == 6
    assert two == pytest.approx(one, rel=1e-4)

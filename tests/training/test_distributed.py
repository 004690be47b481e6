"""Several processes learn what one would learn, write one run, and share one budget."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.cgroups import run_in_group

from caudal.core.errors import OutOfMemory
from caudal.core.events import Events, StepDone, read
from caudal.runs import assemble
from caudal.runs.folder import RunFolder
from caudal.runs.spec import RunSpec
from caudal.runs.verbs.train import train
from caudal.runs.work.set_stream import least_ram
from caudal.runs.work.sets import Sets
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


class Room(torch.nn.Module):
    """Hands on what it gets, and has no memory for more than `most` samples at once."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def forward(self, x_BF: torch.Tensor) -> torch.Tensor:
        if len(x_BF) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return x_BF


def stepper_of(ranks: Ranks, micro_batch: int, most: int = BATCH) -> Stepper:
    """What takes steps of a small model, in a process that has memory for `most` samples at once."""
    torch.manual_seed(5)
    model = torch.nn.Sequential(torch.nn.Linear(6, 9), Room(most), torch.nn.Tanh(), torch.nn.Linear(9, 2))
    model.register_buffer("seen", torch.zeros(1))
    number = precision.choose("cpu", "fp32")

    def prepare(part: Part, chosen: slice) -> tuple[torch.Tensor, torch.Tensor]:
        model.seen += part.x_BF[chosen].mean()
        return part.x_BF[chosen], part.y_B[chosen]

    return Stepper(
        model, Classification(("a", "b")), AdamW(model.parameters(), 1e-2, 0.1), number.scaler(), number,
        prepare, micro_batch, 0.05, smaller=(4, 2, 1), ranks=ranks,
    )  # fmt: skip


def learn(ranks: Ranks, stepper: Stepper | None = None) -> dict[str, torch.Tensor]:
    """Weights after some steps, with statistics of each sample beside them, and the losses."""
    stepper = stepper or stepper_of(ranks, 4 if ranks.first else 2)
    losses = [stepper.run(Part(step, ranks), 1e-2) for step in range(STEPS)]
    return {**stepper.model.state_dict(), "losses": torch.tensor(losses)}


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


def both(function: str, folder: Path) -> list[dict[str, torch.Tensor]]:
    """What each of two processes leaves in the folder, that call a function of this file with it."""
    env = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
    code = f"import sys, pathlib, test_distributed as t; t.{function}(pathlib.Path(sys.argv[1]))"
    root = Path(__file__).parents[2]
    env["PYTHONPATH"] = os.pathsep.join((str(Path(__file__).parent), str(root)))
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(folder)], env=env | {"RANK": str(rank), "WORLD_SIZE": str(WORLD)}
        )
        for rank in range(WORLD)
    ]
    assert [process.wait(120) for process in processes] == [0] * WORLD
    return [load_file(folder / f"{rank}.safetensors") for rank in range(WORLD)]


def test_two_processes_take_the_steps_of_one(tmp_path: Path) -> None:
    shared = both("child", tmp_path)
    for name, expected in learn(ALONE).items():
        assert torch.equal(shared[0][name], shared[1][name]), name
        if name != "seen":  # of one process it counts micro-batches
            assert torch.allclose(shared[0][name], expected, rtol=1e-5, atol=1e-6), name


def child_without_room(folder: Path) -> None:
    """As `child`, in processes of which the second has memory for two samples, and then for none."""
    with joined("cpu") as ranks:
        second = not ranks.first
        stepper = stepper_of(ranks, 4, most=2 if second else BATCH)
        found = learn(ranks, stepper)
        assert stepper.micro_batch == 2, "both take parts of the size for which there is room"
        before = {name: value.clone() for name, value in stepper.model.state_dict().items()}
        stepper.model[1].most = 0 if second else BATCH
        with pytest.raises(OutOfMemory, match="cannot take fewer"):
            stepper.run(Part(STEPS, ranks), 1e-2)
        for name, value in stepper.model.state_dict().items():
            assert torch.equal(value, before[name]), name
        with pytest.raises(OutOfMemory, match="What is so"):
            ranks.told_by(lambda: (_ for _ in ()).throw(OutOfMemory("What is so.", "What mends it.")))
        assert ranks.told_by(lambda: ranks.rank) == 0
        save_file(found, folder / f"{ranks.rank}.safetensors")


def test_where_one_process_runs_out_of_memory_all_take_the_step_again_or_all_end(tmp_path: Path) -> None:
    first, second = both("child_without_room", tmp_path)
    for name, expected in learn(ALONE).items():
        assert torch.equal(first[name], second[name]), name
        if name != "seen":
            assert torch.allclose(first[name], expected, rtol=1e-5, atol=1e-6), name


def sequences(path: Path) -> Path:
    """Sequences of very different lengths."""
    draw = np.random.default_rng(0)
    lengths = np.ceil(draw.lognormal(2, 0.8, 48)).astype(int)
    x, ends = draw.normal(size=(int(lengths.sum()), 3)).astype(np.float32), np.cumsum(lengths)
    np.savez(path, **{"x": x, "x.ends": ends, "y": np.arange(48) % 2})
    return path


def molecules(path: Path) -> Path:
    """Chains of nodes of very different lengths, with features of edges."""
    draw = np.random.default_rng(0)
    with path.open("w") as file:
        for k, nodes in enumerate(np.ceil(draw.lognormal(2, 0.8, 48)).astype(int).tolist()):
            edges = [[i, i + 1, float(draw.normal())] for i in range(nodes - 1)]
            x = draw.normal(size=(nodes, 3)).round(3).tolist()
            file.write(json.dumps({"x": x, "edges": edges or [[0, 0, 0.0]], "y": k % 2}) + "\n")
    return path


def learn_samples(task: str, data: Path, folder: Path, ranks: Ranks) -> dict[str, torch.Tensor]:
    """Weights and losses of some steps on sequences or graphs, as a run takes them."""
    models = {"sequence": {"name": "recurrent", "config": {"width": 8}}, "graph": {"name": "graph_conv"}}
    spec = RunSpec.make(
        {
            "task": task,
            "data": {"images": [str(data)]},
            "model": models[task],
            "training": {"steps": STEPS, "batch": BATCH},
            "device": "cpu",
        }
    )
    work = Sets.open(spec)
    plan: Any = SimpleNamespace(spec=spec, device="cpu", arena=least_ram(work.train, BATCH, 2))
    folder.mkdir()
    course = work.start(plan, RunFolder(folder), False, Events())
    number = precision.choose("cpu", "fp32")
    torch.manual_seed(5)
    model = course.make_model()
    stepper, _average = assemble.make_stepper(
        spec, course.task, model, course.prepare(), course.parts, number, 4 if ranks.first else 2
    )
    stepper.ranks = ranks
    with course.batches(0) as batches:
        losses = [stepper.run(batch, 1e-2) for batch in batches]
    assert len(losses) == STEPS
    return {**model.state_dict(), "losses": torch.tensor(losses)}


def child_of_samples(folder: Path) -> None:
    """As `child`, on sequences and then on graphs."""
    with joined("cpu") as ranks:
        found = {}
        for task, data in (("sequence", "beats.npz"), ("graph", "molecules.jsonl")):
            made = learn_samples(task, folder / data, folder / f"{task}{ranks.rank}", ranks)
            found |= {f"{task}.{name}": value for name, value in made.items()}
        save_file(found, folder / f"{ranks.rank}.safetensors")


def test_two_processes_take_the_steps_of_one_on_sequences_and_graphs(tmp_path: Path) -> None:
    pytest.importorskip("torch_geometric")
    data = {"sequence": sequences(tmp_path / "beats.npz"), "graph": molecules(tmp_path / "molecules.jsonl")}
    first, second = both("child_of_samples", tmp_path)
    for task, path in data.items():
        for name, expected in learn_samples(task, path, tmp_path / task, ALONE).items():
            one = first[f"{task}.{name}"]
            assert torch.equal(one, second[f"{task}.{name}"]), name
            assert torch.allclose(one, expected, rtol=1e-3, atol=1e-5), (task, name)


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


@pytest.mark.slow
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

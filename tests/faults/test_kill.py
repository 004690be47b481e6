"""Killed anywhere, a run goes on and ends with the same bits."""

import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from caudal.runs.verbs.plan import make_spec
from tests.conftest import TINY_MODEL, TINY_TRAINING

CHILD = Path(__file__).with_name("killed_child.py")
STEPS = 40


def run(spec: Path, out: Path, kill_at: int) -> int:
    done = subprocess.run(
        [sys.executable, str(CHILD), str(spec), str(out), str(kill_at)], capture_output=True, text=True
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


def weights(folder: Path) -> dict[str, torch.Tensor]:
    with safe_open(folder / "model" / "model.safetensors", framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict


def last_state(folder: Path) -> dict[str, torch.Tensor]:
    path = sorted((folder / "checkpoints").glob("step-*.safetensors"))[-1]
    assert path.name == f"step-{STEPS:08d}.safetensors"
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


@pytest.mark.timeout(400)
@pytest.mark.parametrize("kills", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_a_run_killed_at_random_steps_ends_bitwise_as_if_it_had_not(
    tiny_set: Path, tmp_path: Path, kills: int
) -> None:
    training = TINY_TRAINING | {"steps": STEPS, "checkpoint_steps": 2, "patience": 0}
    spec = make_spec("segmentation", tiny_set, ram="1GiB", training=training, model=TINY_MODEL)
    path = tmp_path / "spec.toml"
    path.write_text(spec.to_toml())
    assert run(path, tmp_path / "whole", 0) == 0
    # The same plan: another one may cut the batch into other micro-batches, which add up in another order.
    (tmp_path / "killed").mkdir()
    for name in ("spec.toml", "plan.json"):
        shutil.copy(tmp_path / "whole" / name, tmp_path / "killed" / name)
    steps = sorted(random.Random(10).sample(range(1, STEPS), kills))
    for step in steps:
        assert run(path, tmp_path / "killed", step) == -signal.SIGKILL
        checkpoints = tmp_path / "killed" / "checkpoints"
        for file in checkpoints.glob("step-*.safetensors") if checkpoints.exists() else ():
            with safe_open(file, framework="pt") as opened:  # whole, whatever the moment
                assert opened.metadata()
        assert not (tmp_path / "killed" / "result.json").exists()
    assert run(path, tmp_path / "killed", 0) == 0
    for read in (weights, last_state):
        whole, killed = read(tmp_path / "whole"), read(tmp_path / "killed")
        assert whole.keys() == killed.keys()
        assert all(torch.equal(whole[name], killed[name]) for name in whole)
    assert not list(tmp_path.rglob("*.part"))

"""What cannot fit is refused at once, by what is known without loading it; packing has a plan, too."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import caudal
from caudal.core.errors import DoesNotFit
from caudal.core.units import MIB
from caudal.runs import probe
from caudal.runs.probe import ProbeRequest
from caudal.runs.spec import RunSpec

CAUDAL = [sys.executable, "-m", "caudal"]
_AT_ONCE_SECONDS = 6  # 2 where nobody else computes: 1.2 of them are torch's import


def computed_seconds() -> float:
    """What this process and those that it waited for have computed: however busy the machine is."""
    below = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + below.ru_utime + below.ru_stime


def spec_of(tiny_set: Path, ram: str, **config: int) -> RunSpec:
    return RunSpec.make(
        {
            "task": "segmentation",
            "data": {"images": [str(tiny_set)], "patch_px": 64},
            "model": {"config": config},
            "ram": ram,
            "device": "cpu",
        }
    )


def test_a_model_whose_weights_alone_pass_the_budget_is_refused_with_its_holders(tiny_set: Path) -> None:
    began = computed_seconds()
    with pytest.raises(DoesNotFit) as caught:
        caudal.plan(spec_of(tiny_set, "512MiB", width=256, depth=5))  # 2 billion weights: 8 GiB and more
    assert computed_seconds() - began < _AT_ONCE_SECONDS
    facts = caught.value.facts
    assert isinstance(facts["needed"], int)
    assert facts["needed"] > 2**33
    holders = facts["holders"]
    assert isinstance(holders, dict)
    assert {"weights", "gradients"} <= set(holders)  # the optimizer's state may lie elsewhere


def test_activations_that_pass_the_budget_are_refused_by_a_trace(tiny_set: Path) -> None:
    spec = spec_of(tiny_set, "400MiB", width=128, depth=1, stem=1)
    large = {"data": spec.data.model_copy(update={"patch_px": 1024})}
    spec = spec.model_copy(update=large | {"training": spec.training.model_copy(update={"batch": 2})})
    began = computed_seconds()
    with pytest.raises(DoesNotFit, match="activations and workspace"):
        caudal.plan(spec)
    assert computed_seconds() - began < _AT_ONCE_SECONDS


@pytest.mark.parametrize(("ram_mib", "children"), [(165, 0), (180, 1)])
def test_where_libraries_leave_no_room_nothing_is_measured_and_no_smaller_spec_tried(
    tiny_set: Path, monkeypatch: pytest.MonkeyPatch, ram_mib: int, children: int
) -> None:
    said: list[list[dict[str, Any]]] = []

    def told(request: ProbeRequest) -> list[dict[str, Any]]:
        said.append(run(request))
        return said[-1]

    run = probe._run
    monkeypatch.setattr(probe, "_run", told)
    with pytest.raises(DoesNotFit, match="interpreter and libraries") as caught:
        caudal.plan(spec_of(tiny_set, f"{ram_mib}MiB", width=8, depth=2))
    assert int(str(caught.value.facts["always"])) > ram_mib * MIB
    assert len(said) == children
    assert all((one[0], "error" in one[1]) == ({"measures": "reading"}, True) for one in said)


def test_nothing_is_refused_at_once_that_a_probe_finds_room_for(
    tiny_set: Path, monkeypatch: pytest.MonkeyPatch, warm_run: Any
) -> None:
    monkeypatch.setattr(probe, "_run", warm_run)
    made = caudal.plan(spec_of(tiny_set, "4GiB", width=16, depth=2))
    least = int(made.memory.predicted("ram") * 1.1)
    again = caudal.plan(spec_of(tiny_set, str(least), width=16, depth=2))
    assert again.memory.predicted("ram") <= least


def test_packing_has_a_plan(tmp_path: Path) -> None:
    for k in range(3):
        np.savez_compressed(tmp_path / f"{k}.npz", x=np.zeros((200, 50), np.float32), y=np.arange(200))
    done = subprocess.run(
        [*CAUDAL, "plan", "pack", str(tmp_path), "--json"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    metrics = json.loads(done.stdout.splitlines()[-1])["metrics"]
    assert metrics["gain"] > 0
    assert metrics["pack_bytes"] == 3 * 200 * (200 + 8)
    assert not (tmp_path / "pack").exists()
    two = subprocess.run([*CAUDAL, "plan", "pack", "a", "b"], capture_output=True, check=False)
    assert two.returncode == 2

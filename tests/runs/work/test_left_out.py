"""Samples without a label, or that a table does not name, take no part; what is scored chooses nothing."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image

from caudal.core.events import Events
from caudal.runs.folder import RunFolder
from caudal.runs.spec import RunSpec
from caudal.runs.work.sets import Sets
from caudal.training import precision
from tests.runs.work.untrained import asked

DRAW = np.random.default_rng(0)


def pictures(root: Path, labels: list[str | None]) -> RunSpec:
    """Pictures in one folder; `None` is one that the table does not name."""
    (root / "set").mkdir()
    rows = ["file,label"]
    for k, name in enumerate(labels):
        x_HWC = DRAW.integers(0, 255, (16, 16, 3)).astype(np.uint8)
        Image.fromarray(x_HWC).save(root / "set" / f"{k:02d}.png")
        rows += [f"{k:02d}.png,{name}"] if name is not None else []
    (root / "labels.csv").write_text("\n".join(rows) + "\n")
    return asked("classification", root / "set", data={"image_px": 16, "labels": str(root / "labels.csv")})


@pytest.mark.parametrize("first", ["", None])
def test_a_plan_rehearses_what_has_a_label(first: str | None, tmp_path: Path) -> None:
    made = pictures(tmp_path, [first, "a", "b"] + [first] * 3 + ["a", "b"] * 7)
    work = Sets.open(made)
    rehearsal = Sets.rehearse(made, work.tell())
    prepare, task = rehearsal.prepare("cpu"), rehearsal.make_task()
    for number in range(2):
        batch = rehearsal.batch(4, number)
        x, y = prepare(batch, slice(0, 4))
        loss = task.loss(torch.zeros(len(x), task.outputs()), y)
        assert torch.isfinite(loss).all()
        if first is None:
            assert set(batch.samples.tolist()) <= set(work.opened.members.tolist())


def test_the_largest_of_what_is_used_is_rehearsed(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    rows = ["file,label"]
    for k in range(20):
        np.savez(folder / f"{k:02d}.npz", x=np.zeros((50 if k == 7 else 3 + k % 3, 2), np.float32))
        rows += [f"{k:02d}.npz,{k % 2}"] if k != 7 else []
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    made = asked("sequence", folder, data={"labels": str(tmp_path / "labels.csv")})
    work = Sets.open(made)
    rehearsal = Sets.rehearse(made, work.tell())
    for number in range(3):
        batch = rehearsal.batch(8, number)
        assert 7 not in batch.samples
    assert max(rehearsal.batch(19, 0).numpy("x").lengths) == 5


def chosen_and_said(parts: dict[str, int], tmp_path: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    arrays = {}
    for name, count in parts.items():
        arrays[f"X_{name}"] = DRAW.normal(size=(count, 4, 1)).astype(np.float32)
        arrays[f"y_{name}"] = np.arange(count) % 2
    np.savez(tmp_path / "parts.npz", **arrays)
    made = asked("sequence", tmp_path / "parts.npz")
    work = Sets.open(made)
    plan = SimpleNamespace(
        spec=made, device="cpu", probe=SimpleNamespace(scoring=0), point=SimpleNamespace(recompute=0)
    )
    folder = RunFolder(tmp_path)
    course = work.start(cast(Any, plan), folder, False, Events())
    model = course.make_model()
    course.score(model, precision.choose("cpu", "float32"), tmp_path)
    inputs = course.card(model, {}).inputs
    assert inputs is not None
    return inputs["chosen"], work.warnings


def test_a_threshold_is_chosen_on_samples_that_are_not_scored(tmp_path: Path) -> None:
    chosen, said = chosen_and_said({"train": 40, "val": 120, "test": 20}, tmp_path)
    assert len(chosen["thresholds"]) == 1
    assert not any("chose the model" in text for text in said)
    chosen, said = chosen_and_said({"train": 40, "val": 120}, tmp_path)
    assert not chosen
    assert any("what is scored also chose the model" in text for text in said)

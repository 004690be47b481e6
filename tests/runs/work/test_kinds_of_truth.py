"""Every kind of truth is rehearsed, learned and scored: of whole samples, and of their steps and nodes."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import caudal
from caudal.core.events import Events
from caudal.runs import assemble
from caudal.runs.folder import RunFolder
from caudal.runs.work.graph_kind import sized_parts
from caudal.runs.work.set_stream import least_ram
from caudal.runs.work.sets import Sets
from caudal.training import precision
from tests.runs.work.untrained import asked

STEPS, BATCH = 80, 16


def learned(task: str, data: Path, folder: Path, **config: Any) -> dict[str, float | None]:
    """Figures on what was held out, after some steps."""
    made = asked(task, data, config={"width": 8, **config}, training={"steps": STEPS, "batch": BATCH})
    work = Sets.open(made)
    rehearsal = Sets.rehearse(made, work.tell())
    x, y = rehearsal.prepare("cpu")(rehearsal.batch(BATCH, 0), slice(0, BATCH))
    torch.manual_seed(0)
    number = precision.choose("cpu", "fp32")
    point = SimpleNamespace(recompute=0)
    plan: Any = SimpleNamespace(spec=made, device="cpu", arena=least_ram(work.train, BATCH, 2), point=point)
    course = work.start(plan, RunFolder(folder), False, Events())
    model = course.make_model()
    assert torch.isfinite(rehearsal.make_task().loss(model(x), y)).all()
    stepper, _average = assemble.make_stepper(
        made, course.task, model, course.prepare(), course.parts, number, BATCH
    )
    with course.batches(0) as batches:
        for batch in batches:
            stepper.run(batch, 2e-2)
    metrics, _warnings = course.score(model.eval(), number, folder)
    assert json.loads((folder / "tables.json").read_text())
    return dict(metrics)


def truth_of(x: Any, kind: str) -> Any:
    """Of rows (…, 2): whether or which numbers are large, or what they are."""
    if kind == "binary":
        return (x[..., 0] > 0).astype(np.int64)
    return (x > 0).astype(np.int64) if kind == "multilabel" else x[..., 0] * 3 + 5.25


FIGURE = {"binary": "auroc", "multilabel": "auroc", "regression": "r2"}


@pytest.mark.parametrize("kind", ["binary", "multilabel", "regression"])
@pytest.mark.parametrize("form", ["whole", "ragged steps", "equal steps"])
def test_sequences_are_learned(kind: str, form: str, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    count, config = 160, {}
    if form == "ragged steps":
        lengths = draw.integers(2, 9, count)
        x, ends = draw.normal(size=(int(lengths.sum()), 2)).astype(np.float32), np.cumsum(lengths)
        y = truth_of(x, kind)
        y[::9] = np.nan if kind == "regression" else -1
        held = {"x": x, "x.ends": ends, "y": y, "y.ends": ends}
    else:
        x = draw.normal(size=(count, 6, 2)).astype(np.float32)
        x = np.repeat(x[:, :1], 6, 1) if form == "whole" else x
        held = {"x": x, "y": truth_of(x[:, 0] if form == "whole" else x, kind)}
        config = {"per_step": True} if form == "equal steps" else {}
    np.savez(tmp_path / "set.npz", **held)
    metrics = learned("sequence", tmp_path / "set.npz", tmp_path, **config)
    assert (metrics[FIGURE[kind]] or 0) > 0.8, metrics
    if form != "whole" and kind == "binary":
        assert (metrics["samples"] or 0) > 60  # steps, and no unknown one


@pytest.mark.parametrize("kind", ["binary", "regression"])
def test_nodes_are_learned(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("torch_geometric")
    draw = np.random.default_rng(0)
    with (tmp_path / "set.jsonl").open("w") as file:
        for _k in range(120):
            x = draw.normal(size=(int(draw.integers(2, 9)), 2))
            y = truth_of(x, kind)
            y[0] = -1 if kind == "binary" else y[0]
            edges = [[n, n + 1] for n in range(len(x) - 1)]
            file.write(json.dumps({"x": x.tolist(), "edges": edges, "y": y.tolist()}) + "\n")
    metrics = learned("graph", tmp_path / "set.jsonl", tmp_path)
    assert (metrics[FIGURE[kind]] or 0) > 0.7, metrics


def test_a_run_of_steps_goes_from_plan_to_predictions(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(100, 5, 1)).astype(np.float32)
    np.savez(tmp_path / "set.npz", x=x, y=(x[:, :, 0] > 0).astype(np.int64))
    made = asked("sequence", tmp_path / "set.npz", config={"per_step": True})
    result = caudal.train(made, out=tmp_path / "run", ram="1GiB")
    assert result.metrics is not None
    assert result.metrics["samples"] == 5 * 20
    assert "caudal explain" not in (tmp_path / "run" / "report.html").read_text()  # steps are not explained
    caudal.predict(tmp_path / "run", tmp_path / "set.npz", out=tmp_path / "said.csv", ram="1GiB")
    with (tmp_path / "said.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 100 * 5


@pytest.mark.parametrize(
    ("sizes", "most", "cuts"),
    [
        ([3, 3, 3, 3], 6, [(0, 2), (2, 4)]),
        ([9, 1, 1], 4, [(0, 1), (1, 3)]),
        ([1, 1, 9], 4, [(0, 2), (2, 3)]),
        ([5], 1, [(0, 1)]),
        ([0, 0, 0], 1, [(0, 3)]),
    ],
)
def test_parts_hold_at_most_so_many_rows_or_one_sample(
    sizes: list[int], most: int, cuts: list[tuple[int, int]]
) -> None:
    found = list(sized_parts(np.array(sizes), most))
    assert [(one.start, one.stop) for one in found] == cuts

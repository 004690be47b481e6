"""`explain` tells which steps and nodes spoke for what a model says, as a page and as a table."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

import caudal
from caudal.core.errors import UsageError
from caudal.runs.explained_rows import kept
from caudal.runs.report.steps_and_nodes import layout
from caudal.runs.spec import RunSpec

TRAINING = {"steps": 80, "batch": 16, "learning_rate": 1e-2, "average": 10}


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on noise in which a bump at the steps 10 to 13 is the class."""
    root = tmp_path_factory.mktemp("steps")
    draw = np.random.default_rng(0)
    x = draw.normal(0, 0.3, (160, 40)).astype(np.float32)
    y = np.arange(160) % 2
    x[y == 1, 10:14] += 3
    np.savez(root / "bumps.npz", x=x, y=y)
    spec = {
        "task": "sequence",
        "data": {"images": [str(root / "bumps.npz")]},
        "training": TRAINING,
        "device": "cpu",
    }
    spec["model"] = {"name": "temporal", "config": {"width": 8, "depth": 2}}
    caudal.train(RunSpec.make(spec), out=root / "run", ram="1GiB")
    return root


def test_the_steps_that_make_a_class_are_found(steps: Path, tmp_path: Path) -> None:
    out = tmp_path / "why.csv"
    result = caudal.explain(steps / "run", steps / "bumps.npz", out=out, target="1", most=6, ram="1GiB")
    assert result.metrics is not None
    assert result.metrics["samples"] == 6
    assert (result.metrics["missed"] or 0) < 0.05
    with out.open() as file:
        rows = list(csv.DictReader(file))
    gave = np.array([float(row["gave"]) for row in rows]).reshape(6, 40)
    for sample in (1, 3, 5):
        assert set(np.argsort(-gave[sample])[:3].tolist()) <= set(range(9, 15))
    page = tmp_path / "why.html"
    caudal.explain(steps / "run", steps / "bumps.npz", out=page, most=2, ram="1GiB")
    text = page.read_text()
    assert text.count("<section>") == 2
    assert "bumps.npz · 1" in text
    assert 'class="curve fourth"' in text


def test_the_report_says_what_spoke_for_some_that_were_scored(steps: Path) -> None:
    items = kept(steps / "run")
    assert len(items) == 3
    assert all(item.values.shape == (40,) for item in items)
    assert all(item.features.shape == (40, 1) for item in items)
    text = (steps / "run" / "report.html").read_text()
    assert "What spoke for it" in text
    assert all(item.name in text for item in items)
    assert text.count('class="curve fourth"') == 3
    assert "caudal explain" in text


def test_what_cannot_be_explained_is_a_sentence(steps: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no class"):
        caudal.explain(steps / "run", steps / "bumps.npz", out=tmp_path / "a.html", target="9", ram="1GiB")
    with pytest.raises(UsageError, match="page or a table"):
        caudal.explain(steps / "run", steps / "bumps.npz", out=tmp_path / "a.png", ram="1GiB")


def test_the_node_that_makes_a_class_is_found_and_drawn(tmp_path: Path) -> None:
    pytest.importorskip("torch_geometric")
    draw = np.random.default_rng(1)
    lines = []
    for k in range(160):
        x = draw.normal(0, 0.3, (8, 1))
        x[3] += 4 * (k % 2)
        edges = [[n, (n + 1) % 8] for n in range(8)]
        lines.append(json.dumps({"x": x.round(3).tolist(), "edges": edges, "y": k % 2}))
    (tmp_path / "rings.jsonl").write_text("\n".join(lines) + "\n")
    spec = {
        "task": "graph",
        "data": {"images": [str(tmp_path / "rings.jsonl")]},
        "training": TRAINING,
        "device": "cpu",
    }
    spec["model"] = {"name": "graph_conv", "config": {"width": 8, "layers": 1}}
    caudal.train(RunSpec.make(spec), out=tmp_path / "run", ram="1GiB")
    assert 'class="graph"' in (tmp_path / "run" / "report.html").read_text()
    out = tmp_path / "why.csv"
    caudal.explain(tmp_path / "run", tmp_path / "rings.jsonl", out=out, target="1", most=4, ram="1GiB")
    with out.open() as file:
        gave = np.array([float(row["gave"]) for row in csv.DictReader(file)]).reshape(4, 8)
    assert gave[1].argmax() == gave[3].argmax() == 3
    page = tmp_path / "why.html"
    caudal.explain(tmp_path / "run", tmp_path / "rings.jsonl", out=page, most=1, ram="1GiB")
    assert page.read_text().count("<circle") == 8


def test_a_layout_keeps_neighbours_near_and_everyone_inside() -> None:
    chain = np.array([[k, k + 1] for k in range(9)])
    at = layout(10, chain)
    assert at.shape == (10, 2)
    assert (at >= -1e-9).all()
    assert (at <= 1 + 1e-9).all()
    near = np.linalg.norm(at[chain[:, 0]] - at[chain[:, 1]], axis=1)
    assert near.max() < np.linalg.norm(at[0] - at[9])
    assert layout(1, np.zeros((0, 2), np.int64)).shape == (1, 2)

"""Nodes of one graph are learned with the neighbours that are drawn for them, and said of others."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

import caudal
from caudal.data.neighbours.build import write_graph
from caudal.runs.spec import RunSpec


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two groups of nodes that know their own; features are noise with a faint trace of the group."""
    folder = tmp_path_factory.mktemp("one") / "friends"
    draw = np.random.default_rng(0)
    nodes = 1200
    y = draw.integers(0, 2, nodes)
    groups = [np.flatnonzero(y == k) for k in (0, 1)]
    a = draw.integers(0, nodes, 12_000)
    b = np.array([draw.choice(groups[y[n]]) for n in a.tolist()])
    x = (draw.normal(0, 1, (nodes, 4)) + 0.4 * (y[:, None] * 2 - 1)).astype(np.float32)
    split = np.repeat([0, 1, 2], [700, 200, 300])
    known = np.where(np.arange(nodes) % 10 == 9, -1, y)
    write_graph(folder, lambda: [np.stack([a, b], 1)], x, known, split=split)
    return folder


def spec(folder: Path, **model: int) -> RunSpec:
    return RunSpec.make(
        {
            "task": "graph",
            "data": {"images": [str(folder)]},
            "model": {"name": "graph_conv", "config": {"kind": "sage", "width": 16, **model}},
            "training": {"steps": 80, "batch": 32, "learning_rate": 1e-2, "average": 10},
            "device": "cpu",
        }
    )


def test_neighbours_tell_what_a_node_alone_does_not(graph: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch_geometric")
    plan = caudal.plan(spec(graph, neighbours=6), ram="1GiB")
    assert "one graph of 1200 nodes" in str(plan)
    result = caudal.train(plan, out=tmp_path / "run")
    assert result.metrics is not None
    assert result.metrics["samples"] == 270  # the test part, those that nobody knows left out
    assert (result.metrics["auroc"] or 0) > 0.97
    again = caudal.evaluate(tmp_path / "run", graph)
    assert again.metrics is not None
    assert again.metrics["auroc"] == pytest.approx(result.metrics["auroc"], abs=1e-6)
    caudal.predict(tmp_path / "run", graph, out=tmp_path / "said.csv")
    with (tmp_path / "said.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 1080


def test_the_gradient_of_nodes_does_not_depend_on_micro_batches(graph: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch_geometric")
    plan = caudal.plan(spec(graph).model_copy(update={"training": spec(graph).training.model_copy(
        update={"steps": 6})}), ram="1GiB")  # fmt: skip
    losses = []
    for size in (4, 32):
        out = tmp_path / str(size)
        caudal.train(plan.model_copy(update={"micro_batch": size}), out=out)
        import json

        events = map(json.loads, (out / "events.jsonl").read_text().splitlines())
        losses.append([event["loss"] for event in events if event["kind"] == "step_done"])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)

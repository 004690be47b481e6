"""Bad sequences and graphs: what can be learned from is, and said; all else is a sentence before training."""

from __future__ import annotations

import csv
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import caudal
from caudal.core.errors import BadValues, CaudalError, DataError, UsageError
from caudal.runs.spec import RunSpec

DRAW = np.random.default_rng(0)


def spec(task: str, data: Path, **sections: Any) -> RunSpec:
    training = {"steps": 12, "batch": 8, "average": 4, "validate_every": 6, **sections.pop("training", {})}
    small = {"name": "recurrent", "config": {"width": 4}}
    if task == "graph":
        small = {"name": "graph_conv", "config": {"width": 4, "layers": 1}}
    model = sections.pop("model", small)
    return RunSpec.make(
        {
            "task": task,
            "data": {"images": [str(data)]},
            "training": training,
            "model": model,
            "device": "cpu",
            **sections,
        }
    )


def refused(made: RunSpec, kind: type[CaudalError], *words: str) -> None:
    with pytest.raises(kind) as caught:
        caudal.plan(made, ram="1GiB")
    assert caught.value.hint
    for word in words:
        assert word in caught.value.message


def series(folder: Path, count: int = 48, **changed: Any) -> Path:
    folder.mkdir(exist_ok=True)
    for k in range(count):
        x = DRAW.normal(k % 2, 1, (int(DRAW.integers(2, 9)), 3)).astype(np.float32)
        np.savez(folder / f"{k:03d}.npz", **{"x": x, "y": np.array(k % 2), **changed})
    return folder


def graph_lines(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(map(json.dumps, lines)) + "\n")
    return path


def test_values_that_are_no_numbers_and_empty_sequences_are_learned_from_and_counted(tmp_path: Path) -> None:
    folder = series(tmp_path / "set")
    for k, x in enumerate(([[np.nan] * 3], [[np.inf, 1, -np.inf]] * 4, np.zeros((0, 3)))):
        np.savez(folder / f"bad{k}.npz", x=np.array(x, np.float32), y=np.array(k % 2))
    result = caudal.train(spec("sequence", folder), out=tmp_path / "run", ram="1GiB")
    assert result.metrics is not None
    assert result.metrics["auroc"] is not None
    assert any("missing or not finite" in text for text in result.warnings)
    caudal.predict(tmp_path / "run", folder, out=tmp_path / "said.csv")
    with (tmp_path / "said.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 51
    assert all(0 <= float(row["p_1"]) <= 1 for row in rows)


def test_graphs_without_edges_or_nodes_are_learned_from(tmp_path: Path) -> None:
    pytest.importorskip("torch_geometric")
    lines: list[dict[str, Any]] = []
    for k in range(40):
        nodes = 0 if k in (6, 7) else int(DRAW.integers(1, 6))
        x = DRAW.normal(k % 2, 1, (nodes, 2)).round(3).tolist()
        edges = [[n, n + 1] for n in range(nodes - 1)] if k % 3 else []
        lines.append({"x": x, "edges": edges, "y": k % 2})
    data = graph_lines(tmp_path / "graphs.jsonl", lines)
    result = caudal.train(spec("graph", data), out=tmp_path / "run", ram="1GiB")
    assert result.metrics is not None
    assert result.metrics["auroc"] is not None


def test_labels_that_are_missing(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=DRAW.normal(size=(30, 4, 2)), z=np.arange(30))
    refused(spec("sequence", tmp_path / "x.npz"), UsageError, "what is to be learned")
    np.savez(tmp_path / "all.npz", x=DRAW.normal(size=(30, 4, 2)), y=np.full(30, -1))
    refused(spec("sequence", tmp_path / "all.npz"), BadValues, "no value that is known")
    y = np.arange(60) % 2
    y[:7] = -1
    np.savez(tmp_path / "some.npz", x=DRAW.normal(size=(60, 4, 2)), y=y)
    plan = caudal.plan(spec("sequence", tmp_path / "some.npz"), ram="1GiB")
    assert any("7 samples without a label" in text for text in plan.warnings)


def test_one_class_alone_or_in_a_part(tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", x=DRAW.normal(size=(30, 4, 2)), y=np.ones(30, int))
    refused(spec("sequence", tmp_path / "one.npz"), BadValues, "one class alone")
    x = DRAW.normal(size=(60, 4, 2)).astype(np.float32)
    parts = {"X_train": x[:40], "y_train": np.arange(40) % 2, "X_test": x[40:], "y_test": np.ones(20, int)}
    np.savez(tmp_path / "part.npz", **parts)
    result = caudal.train(spec("sequence", tmp_path / "part.npz"), out=tmp_path / "run", ram="1GiB")
    assert result.metrics is not None
    assert result.metrics["auroc"] is None  # of one class it is no figure, and none is made up
    assert result.metrics["accuracy"] is not None


def test_features_of_another_width(tmp_path: Path) -> None:
    folder = series(tmp_path / "set", 20)
    np.savez(folder / "wide.npz", x=np.zeros((3, 4), np.float32), y=np.array(1))
    refused(spec("sequence", folder), DataError, "wide.npz")
    lines = [{"x": [[1.0, 2.0]], "edges": [], "y": k % 2} for k in range(20)]
    lines[11]["x"] = [[1.0, 2.0, 3.0]]
    refused(spec("graph", graph_lines(tmp_path / "g.jsonl", lines)), DataError, "12")


def test_a_trained_model_refuses_another_width(tmp_path: Path) -> None:
    folder = series(tmp_path / "set")
    caudal.train(spec("sequence", folder), out=tmp_path / "run", ram="1GiB")
    np.savez(tmp_path / "other.npz", x=DRAW.normal(size=(9, 4, 5)), y=np.arange(9) % 2)
    for verb in (caudal.evaluate, caudal.predict):
        more = {"out": tmp_path / "no.csv"} if verb is caudal.predict else {}
        with pytest.raises(DataError, match="trained on"):
            verb(tmp_path / "run", tmp_path / "other.npz", **more)  # type: ignore[operator]
    assert not (tmp_path / "no.csv").exists()


def test_edges_to_nodes_that_are_not_there(tmp_path: Path) -> None:
    lines = [{"x": [[1.0], [2.0]], "edges": [[0, 1]], "y": k % 2} for k in range(20)]
    lines[4]["edges"] = [[0, 7]]
    refused(spec("graph", graph_lines(tmp_path / "g.jsonl", lines)), DataError, "5")


class Evil:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return eval, ("open('/tmp/caudal-was-here', 'w')",)


@pytest.mark.parametrize("kind", ["cut", "code"])
def test_a_pt_that_is_cut_or_holds_code_is_left_out_and_named(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    for k in range(199):
        sample = {"sequence": torch.randn(int(DRAW.integers(2, 6)), 2) + k % 2, "label": torch.tensor(k % 2)}
        torch.save(sample, folder / f"{k:03d}.pt")
    bad = folder / "bad.pt"
    if kind == "cut":
        bad.write_bytes((folder / "000.pt").read_bytes()[:-300])
    else:
        torch.save({"sequence": Evil(), "label": torch.tensor(0)}, bad)
        assert b"eval" in bad.read_bytes()
    (tmp_path / "plain").mkdir()
    result = caudal.train(spec("sequence", folder), out=tmp_path / "run", ram="1GiB")
    assert result.metrics is not None
    assert any("bad.pt" in text for text in result.warnings)
    assert not Path("/tmp/caudal-was-here").exists()
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "bad.pt").write_bytes(bad.read_bytes() if kind == "cut" else pickle.dumps(Evil()))
    refused(spec("sequence", alone), DataError, "bad.pt")
    assert not Path("/tmp/caudal-was-here").exists()

"""What a field means that is learned, whatever its type, and wherever in the files its values lie."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import caudal
from caudal.core.errors import BadValues, UsageError
from caudal.runs.work.sets import Sets
from caudal.runs.work.sought import Sought
from tests.runs.work.untrained import asked, untrained

DRAW = np.random.default_rng(0)


def ragged(path: Path, y_of: Any, count: int = 20, steps: int = 5) -> Path:
    """Sequences of different lengths, with a truth for each step."""
    lengths = DRAW.integers(2, steps + 1, count)
    ends, rows = np.cumsum(lengths), int(lengths.sum())
    x = DRAW.normal(size=(rows, 2)).astype(np.float32)
    np.savez(path, **{"x": x, "x.ends": ends, "y": y_of(rows), "y.ends": ends})
    return path


def learned(path: Path, **more: Any) -> Sought:
    return Sets.open(asked("sequence", path, **more)).sought


def test_an_unknown_step_is_no_class(tmp_path: Path) -> None:
    for kind in (np.int64, np.int8, np.float32):
        found = learned(
            ragged(tmp_path / "a.npz", lambda rows, kind=kind: (np.arange(rows) % 3 - 1).astype(kind))
        )
        assert (found.kind, found.names, found.per_row) == ("binary", ("0", "1"), True)


def test_many_whole_classes_of_steps_are_classes(tmp_path: Path) -> None:
    found = learned(ragged(tmp_path / "a.npz", lambda rows: np.arange(rows) % 30))
    assert (found.kind, len(found.names)) == ("multiclass", 30)
    assert learned(ragged(tmp_path / "b.npz", lambda rows: DRAW.normal(size=rows))).kind == "regression"


def test_labels_with_unknown_ones_are_labels(tmp_path: Path) -> None:
    x, y = DRAW.normal(size=(30, 4, 2)), DRAW.integers(0, 2, (30, 3))
    y[::7, 1] = -1
    np.savez(tmp_path / "whole.npz", x=x, y=y)
    np.savez(tmp_path / "float.npz", x=x, y=np.where(y < 0, np.nan, y))
    for name in ("whole", "float"):
        found = learned(tmp_path / f"{name}.npz")
        assert (found.kind, found.names) == ("multilabel", ("y0", "y1", "y2"))
    np.savez(tmp_path / "none.npz", x=x, y=np.full((30, 3), -1))
    with pytest.raises(BadValues, match="no value that is known"):
        learned(tmp_path / "none.npz")


def test_a_class_in_a_single_file_of_many_is_known(tmp_path: Path) -> None:
    for k in range(300):
        y = np.full(3, 2 if k == 151 else k % 2)
        np.savez(tmp_path / f"{k:03d}.npz", x=DRAW.normal(size=(3, 1)).astype(np.float32), y=y)
    made = asked("sequence", tmp_path, data={"samples": "file"}, config={"per_step": True})
    assert Sets.open(made).sought.names == ("0", "1", "2")


def test_values_of_a_column_are_gathered_as_well_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    y = DRAW.normal(3, 2, 500)
    np.savez(tmp_path / "a.npz", x=DRAW.normal(size=(500, 4, 2)), y=y)
    monkeypatch.setattr("caudal.runs.work.targets_seen._ROWS_AT_ONCE", 64)
    found = learned(tmp_path / "a.npz")
    np.testing.assert_allclose((*found.means, *found.deviations), (y.mean(), y.std()))


def many_to_many(path: Path, y_shape: tuple[int, ...], steps: int = 6) -> Path:
    x = DRAW.normal(size=(24, steps, 2)).astype(np.float32)
    np.savez(path, x=x, y=DRAW.integers(0, 2, (24, *y_shape)))
    return path


def test_a_truth_for_each_of_as_many_steps_is_one_where_that_is_asked_for(tmp_path: Path) -> None:
    data = many_to_many(tmp_path / "a.npz", (6,))
    plain = Sets.open(asked("sequence", data))
    assert (plain.sought.kind, plain.sought.per_row) == ("multilabel", False)
    assert any("per_step = true" in text for text in plain.warnings)
    work = Sets.open(asked("sequence", data, config={"per_step": True}))
    assert (work.sought.kind, work.sought.per_row, len(work.sought.names)) == ("binary", True, 2)
    run = untrained(asked("sequence", data, config={"per_step": True}), tmp_path / "run")
    result = caudal.evaluate(run, data, ram="2GiB")
    assert result.metrics is not None
    assert result.metrics["samples"] == 24 * 6


def test_truths_of_steps_that_cannot_be_are_a_sentence(tmp_path: Path) -> None:
    for shape in ((), (5,)):
        with pytest.raises(UsageError, match="per_step is set"):
            learned(many_to_many(tmp_path / "a.npz", shape), config={"per_step": True})
    with pytest.raises(UsageError, match="per_step is false"):
        learned(ragged(tmp_path / "b.npz", lambda rows: np.arange(rows) % 2), config={"per_step": False})
    x, y = DRAW.normal(size=(20, 2)), np.arange(24) % 2
    np.savez(
        tmp_path / "c.npz", **{"x": x, "x.ends": np.arange(5, 21, 5), "y": y, "y.ends": np.arange(6, 25, 6)}
    )
    with pytest.raises(BadValues, match=r"Sample 0 of c.npz has 6 rows in “y”, and 5 in “x”"):
        learned(tmp_path / "c.npz")
    graph = {"x": [[1.0], [2.0]], "edges": [[0, 1]]}
    (tmp_path / "g.jsonl").write_text("".join(json.dumps({**graph, "y": k % 2}) + "\n" for k in range(20)))
    with pytest.raises(UsageError, match="per_node is set"):
        Sets.open(asked("graph", tmp_path / "g.jsonl", config={"per_node": True}))


def test_fields_that_are_not_used_are_named(tmp_path: Path) -> None:
    x, y = DRAW.normal(size=(20, 4, 2)), np.arange(20) % 2
    np.savez(tmp_path / "a.npz", x=x, extra=x, more=x, y=y)
    assert any(
        "not used are: extra, more" in text
        for text in Sets.open(asked("sequence", tmp_path / "a.npz")).warnings
    )
    np.savez(tmp_path / "b.npz", extra=x, y=y)
    assert not any("not used" in text for text in Sets.open(asked("sequence", tmp_path / "b.npz")).warnings)

"""Columns of few values become columns of 0 and 1; all others stay numbers; what is unknown is told."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import caudal
from caudal.runs.spec import RunSpec
from caudal.runs.work.encoding import Encoding, Tally
from caudal.runs.work.features import Features, Moments


def kinds_of(*columns: object, rows: int = 2000) -> object:
    tally = Tally(len(columns))
    values = np.stack([np.resize(np.asarray(one, np.float64), rows) for one in columns], 1)
    for part in np.array_split(values, 7):
        tally.add(part)
    return tally.result()


def test_few_whole_values_are_kinds_and_two_or_many_are_not() -> None:
    draw = np.random.default_rng(0)
    three, many = [6, 7, 8], np.arange(33)
    assert kinds_of(three, [0, 1], many, draw.normal(size=2000)) == ((6.0, 7.0, 8.0), (), (), ())
    assert kinds_of(np.arange(32)) == (tuple(map(float, range(32))),)
    assert kinds_of([0, 1], many) == ()


def test_values_that_are_not_whole_are_kinds_where_they_are_few() -> None:
    assert kinds_of([1, 1.5, 2, 3]) == ((1.0, 1.5, 2.0, 3.0),)
    assert kinds_of(np.arange(9) + 0.5) == ()


def test_a_few_rows_prove_no_kinds() -> None:
    assert kinds_of([6, 7, 8], rows=60) == ()


def test_what_is_missing_is_no_kind() -> None:
    assert kinds_of([1, 2, np.nan, 3, np.inf]) == ((1.0, 2.0, 3.0),)


@given(st.lists(st.tuples(st.sampled_from([2.0, 5.0, 9.0, 7.5, np.nan]), st.floats(-9, 9)), max_size=30))
def test_an_encoded_row_has_one_1_for_its_kind_and_its_numbers_as_they_were(
    rows: list[tuple[float, float]],
) -> None:
    encode = Encoding(2, ((2.0, 5.0, 9.0), ()))
    given_rows = np.array(rows, np.float64).reshape(-1, 2)
    encoded = encode(given_rows)
    assert encoded.shape == (len(rows), encode.width) == (len(rows), 4)
    np.testing.assert_array_equal(encoded[:, 3], given_rows[:, 1])
    for (kind, _number), one in zip(rows, encoded[:, :3], strict=True):
        if np.isnan(kind):
            assert np.isnan(one).all()
        else:
            assert one.tolist() == [kind == 2, kind == 5, kind == 9]
    assert encode.unknown == sum(kind == 7.5 for kind, _number in rows)


def test_a_kind_that_training_never_had_tells_a_model_nothing() -> None:
    kinds = ((1.0, 2.0, 3.0), ())
    moments = Moments(2, kinds)
    moments.add(np.array([[1.0, 10.0], [3.0, 30.0], [3.0, np.nan]]))
    scaling = moments.result()
    assert scaling.missing == pytest.approx(1 / 6)
    found = Features(scaling, 2, kinds)(np.array([[1, 10], [2, 20], [3, 30]], np.float32))
    np.testing.assert_allclose(found, [[1, 0, 0, -1], [0, 0, 0, 0], [0, 0, 1, 1]], atol=1e-6)


def test_without_kinds_features_are_scaled_alone() -> None:
    moments = Moments(1)
    moments.add(np.array([[1.0], [3.0]]))
    np.testing.assert_allclose(Features(moments.result(), 1)(np.array([[1.0], [5.0]])), [[-1], [3]])


def _graphs(path: Path, atoms: list[int], count: int) -> Path:
    """Chains of atoms; the class is whether the middle kind, by size, is among them: no line can tell it."""
    draw = np.random.default_rng(len(atoms))
    lines = []
    for k in range(count):
        label = k % 2
        nodes = draw.choice([atoms[0], *atoms[2:]], int(draw.integers(4, 9)))
        if label:
            nodes[0] = atoms[1]
        edges = [[n, n + 1, (1, 1.5, 2)[n % 3]] for n in range(len(nodes) - 1)]
        lines.append(json.dumps({"x": [[int(a)] for a in nodes], "edges": edges, "y": label}))
    path.write_text("\n".join(lines) + "\n")
    return path


def test_atoms_are_kinds_from_the_plan_to_a_prediction_and_new_ones_are_counted(tmp_path: Path) -> None:
    pytest.importorskip("torch_geometric")
    made = RunSpec.make(
        {
            "task": "graph",
            "data": {"images": [str(_graphs(tmp_path / "train.jsonl", [6, 7, 8], 160))]},
            "model": {"name": "graph_conv", "config": {"width": 16, "layers": 1}},
            "training": {"steps": 120, "batch": 16, "learning_rate": 1e-2, "average": 10},
            "device": "cpu",
        }
    )
    plan = caudal.plan(made, ram="1GiB")
    assert any("columns 0" in text for text in plan.warnings)
    result = caudal.train(plan, out=tmp_path / "run")
    assert result.metrics is not None
    assert result.metrics["auroc"] == 1.0
    card = json.loads((tmp_path / "run" / "model" / "model.json").read_text())
    assert card["inputs"]["inputs"]["kinds"] == {"x": [[6, 7, 8]], "edge_attr": [[1, 1.5, 2]]}
    assert card["bands"] == card["config"]["edge_inputs"] == 3
    new = _graphs(tmp_path / "new.jsonl", [6, 7, 8, 35], 40)
    scored = caudal.evaluate(tmp_path / "run", new)
    assert any("not seen in training" in text for text in scored.warnings)
    assert scored.metrics is not None
    assert (scored.metrics["auroc"] or 0) > 0.9
    told = caudal.predict(tmp_path / "run", new, out=tmp_path / "new.csv")
    assert any("not seen in training" in text for text in told.warnings)
    same = caudal.predict(tmp_path / "run", tmp_path / "train.jsonl", out=tmp_path / "old.csv")
    assert not any("not seen in training" in text for text in same.warnings)

"""The page shows what the tables of a run say, in either of the shapes that tasks write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from caudal.runs.folder import RunFolder
from caudal.runs.report.held_out import HeldOut, held_out
from caudal.tasks.classification.scorer import ClassificationScorer
from caudal.tasks.scorers.base import scorer_of
from caudal.tasks.targets import Target


def shown(tmp_path: Path, tables: Any) -> HeldOut:
    (tmp_path / "tables.json").write_text(tables if isinstance(tables, str) else json.dumps(tables))
    return held_out(RunFolder(tmp_path))


def scored(classes: int, samples: int = 90) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    truth = draw.integers(0, classes, samples)
    scores = draw.normal(0, 1, (samples, classes)) + 1.5 * np.eye(classes)[truth]
    p = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    return p.astype(np.float32), truth


@pytest.mark.parametrize("classes", [2, 3, 25])
def test_a_classification_is_shown_with_its_counts(tmp_path: Path, classes: int) -> None:
    p, truth = scored(classes, 400)
    names = tuple(f"c{k}" for k in range(classes))
    scorer = ClassificationScorer(names)
    scorer.add(p, truth, {"site": ["a", "b"] * 200})
    page = shown(
        tmp_path, {**scorer.tables(), "shortcuts": [{"name": "size", "auroc": 0.7, "low": 0.6, "high": 0.8}]}
    )
    assert page.confusion is not None
    most = min(classes, 20)
    assert page.confusion.names == list(names[:most])
    assert page.confusion.hidden == classes - most
    if classes <= 20:
        total = sum(int(count.replace("\u202f", "")) for _n, row in page.confusion.rows for count, _s in row)
        assert total == 400
    assert [(name, samples) for name, _figures, samples in page.by_class] == [
        (name, str(int((truth == k).sum()))) for k, name in enumerate(names)
    ]
    assert len(page.charts) == 2
    assert page.charts[0].svg.count('class="curve') == 1 + min(6, 1 if classes == 2 else classes)
    assert [group[:3] for group in page.groups] == [("site", "a", "200"), ("site", "b", "200")]
    assert all(" to " in group[4] for group in page.groups)
    assert page.shortcuts == [("size", "0.700", "0.600 to 0.800", True)]


@pytest.mark.parametrize("kind", ["binary", "multiclass"])
def test_sequences_and_graphs_are_shown_the_same_way(tmp_path: Path, kind: Any) -> None:
    classes = 2 if kind == "binary" else 3
    p, truth = scored(classes)
    scorer: Any = scorer_of(Target(kind=kind, names=tuple("xyz"[:classes])))
    scorer.add(p[:, 1:] if kind == "binary" else p, truth)
    page = shown(tmp_path, scorer.tables())
    assert page.confusion is not None
    counts = [[int(count) for count, _share in row] for _name, row in page.confusion.rows]
    expected = np.zeros((classes, classes), int)
    np.add.at(expected, (truth, p.argmax(1)), 1)
    assert counts == expected.tolist()
    assert all(abs(sum(share for _c, share in row) - 1) < 1e-9 for _n, row in page.confusion.rows)
    assert [chart.title[:5] for chart in page.charts] == ["Found", "What "]
    assert [(name, samples) for name, _figures, samples in page.by_class] == [
        (name, str(int((truth == k).sum()))) for k, name in enumerate("xyz"[:classes])
    ]


def test_labels_are_shown_with_their_figures(tmp_path: Path) -> None:
    scorer: Any = scorer_of(Target(kind="multilabel", names=("a", "b")))
    truth = np.random.default_rng(0).integers(0, 2, (60, 2))
    scorer.add(truth * 0.6 + 0.2, truth)
    page = shown(tmp_path, scorer.tables())
    assert [name for name, _figures, _samples in page.by_class] == ["a", "b"]
    assert page.by_class[0][1] == ["1.000"] * 4


def test_numbers_have_no_curves(tmp_path: Path) -> None:
    scorer: Any = scorer_of(Target(kind="regression", names=("v",), means=(0.0,), deviations=(1.0,)))
    scorer.add(np.arange(9.0)[:, None], np.arange(9.0)[:, None] + 1)
    assert not shown(tmp_path, scorer.tables()).there


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"confusion": 3}', '{"confusion": [{"truth": "a"}]}', '{"roc": [1]}']
)
def test_tables_that_are_missing_or_of_another_version_are_left_out(tmp_path: Path, text: str) -> None:
    assert not held_out(RunFolder(tmp_path / "none")).there
    assert not shown(tmp_path, text).there


def test_one_class_alone_has_no_curve_and_harms_nothing(tmp_path: Path) -> None:
    scorer = ClassificationScorer(("a", "b"))
    scorer.add(np.array([[0.5, 0.5], [0.9, 0.1]], np.float32), np.array([0, 0]), {"site": ["x", "y"]})
    page = shown(tmp_path, scorer.tables())
    assert page.confusion is not None
    assert [chart.title[:4] for chart in page.charts] == ["What"]
    assert {group[3] for group in page.groups} == {"—"}

"""What spoke for a score is kept in a run's folder as it was, as far as it is drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from caudal.runs.explained_rows import EXPLAINED, ExplainedRows, keep, kept
from caudal.runs.report.steps_and_nodes import shown


def item(features: np.ndarray, edges: np.ndarray | None) -> ExplainedRows:
    values = np.linspace(-1, 1, len(features))
    return ExplainedRows("a.npz · 3", "b", 0.7, features, values, edges, 0.01, 0.5, 0.1, "c")


def test_what_is_drawn_comes_back(tmp_path: Path) -> None:
    features = np.random.default_rng(0).normal(size=(6, 5)) * [1, 9, 0, 5, 7]
    features[2, 1] = np.nan
    chain = np.array([[0, 1], [1, 2]])
    keep(tmp_path, [item(features, None), item(features, chain), item(features[:, :0], None)])
    one, two, three = kept(tmp_path)
    assert one.columns == (1, 4, 3)
    np.testing.assert_array_equal(one.features, features[:, [1, 4, 3]])
    assert two.edges is not None
    np.testing.assert_array_equal(two.edges, chain)
    np.testing.assert_array_equal(two.values, np.linspace(-1, 1, 6))
    assert [name for _style, name in shown(one)["figures"][0].legend] == [
        "feature 1",
        "feature 4",
        "feature 3",
    ]
    assert shown(two)["drawing"] is not None
    assert three.features.shape == (6, 0)


def test_what_is_not_there_or_was_written_otherwise_is_not_shown(tmp_path: Path) -> None:
    assert kept(tmp_path) == []
    for text in ("{", "[3]", '[{"name": 1}]', "{}"):
        (tmp_path / EXPLAINED).write_text(text)
        assert kept(tmp_path) == []

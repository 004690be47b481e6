"""Figures are those of scikit-learn, however samples come; what is undefined is never a figure."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as known

from caudal.core.errors import BadValues
from caudal.tasks.base import Metrics
from caudal.tasks.metrics.ranking import auroc
from caudal.tasks.scorers.base import TargetScorer, scorer_of
from caudal.tasks.scorers.ordered import Ordered
from caudal.tasks.targets import Target

BINARY = Target(kind="binary", names=("no", "yes"), thresholds=(0.4,))
CLASSES = Target(kind="multiclass", names=("a", "b", "c"))
LABELS = Target(kind="multilabel", names=("a", "b"))
NUMBERS = Target(kind="regression", names=("x", "y"), means=(0.0, 0.0), deviations=(1.0, 1.0))


def fill(target: Target, probabilities: np.ndarray, truth: np.ndarray, pieces: int = 1) -> TargetScorer:
    scorer = scorer_of(target)
    for p, y in zip(np.array_split(probabilities, pieces), np.array_split(truth, pieces), strict=True):
        scorer.add(p, y)
    return scorer


def agree(found: Metrics, expected: dict[str, float]) -> None:
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-6), name


@given(st.integers(0, 10_000), st.integers(1, 5), st.booleans())
@settings(deadline=None, max_examples=30)
def test_figures_of_two_classes_equal_a_plain_count(seed: int, pieces: int, ties: bool) -> None:
    draw = np.random.default_rng(seed)
    y = np.r_[0, 1, draw.integers(0, 2, 60)]
    p = np.clip(draw.normal(0.4 + 0.2 * y, 0.2), 0, 1).astype(np.float32)
    p = np.round(p, 1) if ties else p
    called = p.astype(float) >= 0.4
    found = fill(BINARY, p[:, None], y, pieces).result()
    agree(
        found,
        {
            "auroc": known.roc_auc_score(y, p),
            "average_precision": known.average_precision_score(y, p),
            "average_precision_no": known.average_precision_score(1 - y, 1 - p.astype(float)),
            "f1": known.f1_score(y, called),
            "f1_no": known.f1_score(1 - y, ~called),
            "recall": known.recall_score(y, called),
            "accuracy": known.accuracy_score(y, called),
            "balanced_accuracy": known.balanced_accuracy_score(y, called),
            "brier": known.brier_score_loss(y, p),
            "threshold": 0.4,
            "samples": 62,
            "support_yes": y.sum(),
        },
    )
    if called.any():
        agree(found, {"precision": known.precision_score(y, called)})


@given(st.integers(0, 10_000), st.integers(1, 4))
@settings(deadline=None, max_examples=20)
def test_figures_of_several_classes_equal_a_plain_count(seed: int, pieces: int) -> None:
    draw = np.random.default_rng(seed)
    y = np.r_[0, 1, 2, draw.integers(0, 3, 50)]
    p = draw.dirichlet((1, 1, 1), len(y))
    p = (0.6 * p + 0.4 * np.eye(3)[y]) if seed % 2 else p
    called = p.argmax(1)
    area = [known.roc_auc_score(y == k, p[:, k]) for k in range(3)]
    agree(
        fill(CLASSES, p, y, pieces).result(),
        {
            "auroc": float(np.mean(area)),
            "auroc_b": area[1],
            "accuracy": known.accuracy_score(y, called),
            "balanced_accuracy": known.balanced_accuracy_score(y, called),
            "f1": known.f1_score(y, called, average="macro"),
            "recall_c": known.recall_score(y, called, average=None)[2],
            "support_a": (y == 0).sum(),
        },
    )


def test_each_label_is_scored_where_it_is_known() -> None:
    draw = np.random.default_rng(0)
    y = draw.integers(0, 2, (80, 2)).astype(float)
    p = np.clip(draw.normal(0.35 + 0.3 * y, 0.2), 0, 1)
    y[draw.random(y.shape) < 0.3] = np.nan
    y[0] = np.nan
    there = ~np.isnan(y)
    area = [known.roc_auc_score(y[there[:, k], k], p[there[:, k], k]) for k in range(2)]
    f1 = [known.f1_score(y[there[:, k], k], p[there[:, k], k] >= 0.5) for k in range(2)]
    scorer = fill(LABELS, p, y, 3)
    agree(
        scorer.result(),
        {
            "auroc": float(np.mean(area)),
            "auroc_b": area[1],
            "f1": float(np.mean(f1)),
            "f1_a": f1[0],
            "samples": float(there.any(1).sum()),
        },
    )
    assert [row["known"] for row in scorer.tables()["classes"]] == there.sum(0).tolist()


@given(st.integers(0, 10_000), st.integers(1, 6))
@settings(deadline=None, max_examples=30)
def test_figures_of_numbers_equal_a_plain_count(seed: int, pieces: int) -> None:
    draw = np.random.default_rng(seed)
    y = draw.normal((1e6, 0), (1, 10), (40, 2))  # far from 0: squares alone would cancel
    p = y + draw.normal(0, 0.5, y.shape)
    found = fill(NUMBERS, p, y, pieces).result()
    agree(
        found,
        {
            "mae_x": known.mean_absolute_error(y[:, 0], p[:, 0]),
            "rmse_y": known.mean_squared_error(y[:, 1], p[:, 1]) ** 0.5,
            "r2_x": known.r2_score(y[:, 0], p[:, 0]),
            "r2": known.r2_score(y, p),
        },
    )


@pytest.mark.parametrize("target", [BINARY, CLASSES, LABELS, NUMBERS], ids=lambda one: one.kind)
def test_unknown_truths_do_not_count(target: Target) -> None:
    draw = np.random.default_rng(1)
    wide = (target.outputs,) if target.is_wide else ()
    p = draw.random((12, target.outputs)).astype(np.float32)
    y = draw.integers(0, 2, (12, *wide)).astype(float)
    more = np.full((5, *wide), np.nan)
    first = fill(target, p, y)
    second = fill(target, np.concatenate([p, p[:5]]), np.concatenate([y, more]))
    assert first.result() == second.result()
    assert first.tables() == second.tables()


@pytest.mark.parametrize("target", [BINARY, CLASSES, LABELS, NUMBERS], ids=lambda one: one.kind)
def test_steps_and_nodes_are_scored_one_by_one(target: Target) -> None:
    draw = np.random.default_rng(2)
    wide = (target.outputs,) if target.is_wide else ()
    p = draw.random((4, 5, target.outputs))
    y = draw.integers(0, 2, (4, 5, *wide)).astype(float)
    steps = fill(target, p, y)
    rows = fill(target, p.reshape(20, -1), y.reshape(20, *wide))
    assert steps.result() == rows.result()


@pytest.mark.parametrize("target", [BINARY, CLASSES, LABELS, NUMBERS], ids=lambda one: one.kind)
def test_without_samples_there_are_no_figures_and_a_warning(target: Target) -> None:
    scorer = scorer_of(target)
    found = scorer.result()
    assert found["samples"] == 0
    assert found["r2" if target.kind == "regression" else "auroc"] is None
    assert scorer.warnings()
    assert scorer.best_thresholds() is None
    assert scorer.tables()


def test_one_class_alone_has_no_auroc_and_says_so() -> None:
    scorer = fill(BINARY, np.array([[0.9], [0.2]]), np.array([0, 0]))
    assert scorer.result()["auroc"] is None
    assert scorer.result()["accuracy"] == 0.5
    assert any("yes" in text for text in scorer.warnings())
    assert scorer.best_thresholds() is None


def test_a_class_that_no_sample_has_is_left_out_of_means() -> None:
    p = np.eye(3)[[0, 1, 0, 1]] * 0.8 + 0.2 / 3
    scorer = fill(CLASSES, p, np.array([0, 1, 0, 1]))
    assert scorer.result()["f1"] == 1
    assert scorer.result()["f1_c"] is None
    assert "c" in scorer.warnings()[0]


def test_a_chosen_threshold_has_the_best_f1_of_all() -> None:
    draw = np.random.default_rng(3)
    y = draw.integers(0, 2, 200)
    p = np.clip(draw.normal(0.1 + 0.15 * y, 0.1), 0, 1).astype(np.float32)
    chosen = fill(BINARY, p[:, None], y).best_thresholds()
    assert chosen is not None
    best = max(known.f1_score(y, p >= at) for at in p)
    f1 = fill(BINARY.model_copy(update={"thresholds": chosen}), p[:, None], y).result()["f1"]
    assert f1 == pytest.approx(best)
    two = fill(LABELS, np.stack([p, p[::-1]], 1), np.stack([y, y[::-1]], 1)).best_thresholds()
    assert two == pytest.approx((*chosen, *chosen))


def test_beyond_what_is_kept_memory_stays_and_order_is_nearly_exact() -> None:
    draw = np.random.default_rng(4)
    y = draw.random(20_000) < 0.3
    p = np.clip(draw.normal(0.4 + 0.2 * y, 0.2), 0, 1)
    exact, counted = Ordered(), Ordered(1000)
    for part in np.array_split(np.arange(len(y)), 40):
        exact.add(p[part], y[part])
        counted.add(p[part], y[part])
    assert len(exact.tally().scores_T) > 5000
    assert not counted._kept
    assert float(auroc(counted.tally())) == pytest.approx(float(auroc(exact.tally())), abs=1e-5)
    assert counted.tally().positives.sum() == y.sum()


@pytest.mark.parametrize("target", [BINARY, CLASSES, LABELS, NUMBERS], ids=lambda one: one.kind)
def test_scores_that_are_no_numbers_are_refused(target: Target) -> None:
    wide = (target.outputs,) if target.is_wide else ()
    with pytest.raises(BadValues):
        fill(target, np.full((2, target.outputs), np.nan), np.zeros((2, *wide)))


def test_tables_have_a_row_for_each_class_and_the_confusion_counts_all() -> None:
    tables = fill(CLASSES, np.eye(3)[[0, 1, 2, 2]], np.array([0, 1, 1, 2])).tables()
    assert [row["class"] for row in tables["classes"]] == ["a", "b", "c"]
    assert tables["confusion"][1] == {"truth": "b", "a": 0, "b": 1, "c": 1}
    assert {row["class"] for row in tables["roc"]} == {"a", "b", "c"}
    assert sum(row["samples"] for row in tables["reliability"]) == 4  # type: ignore[misc]

"""Laws of the classification task: its loss, its figures beside scikit-learn's, and what it will not say."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn import metrics as sk

from caudal.core.errors import BadValues
from caudal.tasks.classification.intervals import Figures
from caudal.tasks.classification.scorer import ClassificationScorer
from caudal.tasks.classification.task import Classification, balanced_weights
from caudal.tasks.metrics import ranking
from caudal.tasks.metrics.ranking import Ranking

NAMES = ("nevus", "melanoma")


def drawn(count: int, classes: int = 2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, count)
    scores = rng.normal(size=(count, classes)) + 1.5 * np.eye(classes)[truth]
    return torch.from_numpy(scores).softmax(1).numpy().astype(np.float32), truth


def scored(probabilities: np.ndarray, truth: np.ndarray, names: tuple[str, ...] = NAMES, **kwargs: object):
    scorer = ClassificationScorer(names, **kwargs)  # type: ignore[arg-type]
    scorer.add(probabilities, truth)
    return scorer


def test_the_loss_of_a_batch_is_that_of_its_samples() -> None:
    task = Classification(NAMES, class_weights=(0.5, 2.0), label_smoothing=0.1)
    scores, target = torch.randn(6, 2), torch.tensor([0, 1, 1, 0, 0, 1])
    together = task.loss(scores, target)
    assert together.shape == (6,)
    apart = torch.cat([task.loss(scores[k : k + 1], target[k : k + 1]) for k in range(6)])
    assert torch.allclose(together, apart)


def test_the_loss_is_cross_entropy_times_the_weight_of_the_class() -> None:
    scores, target = torch.randn(5, 3), torch.tensor([0, 1, 2, 1, 0])
    names = ("a", "b", "c")
    plain = F.cross_entropy(scores, target, reduction="none")
    assert torch.equal(Classification(names).loss(scores, target), plain)
    weighted = Classification(names, class_weights=(1.0, 2.0, 4.0)).loss(scores.bfloat16(), target)
    assert weighted.dtype == torch.float32
    assert torch.allclose(weighted, plain * torch.tensor([1.0, 2.0, 4.0, 2.0, 1.0]), rtol=0.05)


def test_balanced_weights_give_each_class_the_same_say() -> None:
    weights = balanced_weights([30, 10, 0])
    assert weights[0] * 30 == pytest.approx(weights[1] * 10)
    assert weights[0] * 30 + weights[1] * 10 == pytest.approx(40)
    assert weights[2] == 0


def test_probabilities_are_those_of_the_temperature() -> None:
    scores = torch.tensor([[0.0, 2.0], [1.0, -1.0]])
    task = Classification(NAMES)
    assert torch.allclose(task.probabilities(scores), scores.softmax(1))
    task.temperature = 2.0
    assert torch.allclose(task.probabilities(scores), (scores / 2).softmax(1))
    assert task.outputs() == 2


def test_figures_of_two_classes_are_those_of_scikit_learn() -> None:
    probabilities, truth = drawn(300)
    metrics = scored(probabilities, truth).result()
    positive, predicted = probabilities[:, 1], probabilities.argmax(1)
    expected = {
        "auroc": sk.roc_auc_score(truth, positive),
        "average_precision": sk.average_precision_score(truth, positive),
        "accuracy": sk.accuracy_score(truth, predicted),
        "balanced_accuracy": sk.balanced_accuracy_score(truth, predicted),
        "f1": sk.f1_score(truth, predicted),
        "precision": sk.precision_score(truth, predicted),
        "sensitivity": sk.recall_score(truth, predicted),
        "specificity": sk.recall_score(truth, predicted, pos_label=0),
        "brier": sk.brier_score_loss(truth, positive),
        "support_melanoma": (truth == 1).sum(),
        "samples": 300,
    }
    assert {key: metrics[key] for key in expected} == pytest.approx(expected, abs=1e-6)
    assert metrics["auroc_low"] < metrics["auroc"] < metrics["auroc_high"]
    assert 0 < metrics["pauc_above_tpr80"] <= 0.2
    assert all(value is None or isinstance(value, float) for value in metrics.values())


def test_figures_of_more_classes_are_means_of_one_against_the_rest() -> None:
    names = ("a", "b", "c", "d")
    probabilities, truth = drawn(400, 4)
    metrics = scored(probabilities, truth, names).result()
    exact = probabilities.astype(np.float64)
    exact /= exact.sum(1, keepdims=True)
    predicted = probabilities.argmax(1)
    expected = {
        "auroc": sk.roc_auc_score(truth, exact, multi_class="ovr", average="macro"),
        "average_precision": sk.average_precision_score(np.eye(4)[truth], exact, average="macro"),
        "balanced_accuracy": sk.balanced_accuracy_score(truth, predicted),
        "f1": sk.f1_score(truth, predicted, average="macro"),
        "brier": sk.brier_score_loss(truth, exact, labels=[0, 1, 2, 3]),
    }
    assert {key: metrics[key] for key in expected} == pytest.approx(expected, abs=1e-6)


def test_batches_and_their_order_in_memory_do_not_matter() -> None:
    probabilities, truth = drawn(100)
    groups = [f"p{k % 7}" for k in range(100)]
    whole, parts = ClassificationScorer(NAMES), ClassificationScorer(NAMES)
    whole.add(probabilities, truth, {"patient": groups})
    slot = np.empty((30, 2), np.float32)  # the stream uses the same memory for every batch
    for start in range(0, 100, 30):
        part = slice(start, min(start + 30, 100))
        slot[: part.stop - start] = probabilities[part]
        parts.add(slot[: part.stop - start], truth[part], {"patient": groups[part]})
    assert whole.result() == parts.result()
    assert whole.tables() == parts.tables()


def test_a_threshold_decides_between_two_classes() -> None:
    probabilities, truth = drawn(200)
    chosen = scored(probabilities, truth).result()["best_threshold"]
    assert chosen is not None
    metrics = scored(probabilities, truth, threshold=chosen).result()
    best = max(sk.f1_score(truth, probabilities[:, 1] >= t) for t in probabilities[:, 1])
    assert metrics["f1"] == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize("count", [0, 1, 5])
def test_one_class_alone_has_no_auroc_and_is_named(count: int) -> None:
    probabilities = np.full((count, 2), 0.5, np.float32)
    scorer = scored(probabilities, np.zeros(count, np.int64))
    metrics = scorer.result()
    for key in ("auroc", "auroc_low", "auroc_high", "pauc_above_tpr80", "balanced_accuracy"):
        assert metrics[key] is None
    assert metrics["best_threshold"] is None
    assert any("melanoma" in warning for warning in scorer.warnings())
    assert scorer.tables()["roc"] == {"melanoma": []}


def test_equal_scores_rank_nothing() -> None:
    metrics = scored(np.full((20, 2), 0.5, np.float32), np.arange(20) % 2).result()
    assert (metrics["auroc"], metrics["auroc_low"], metrics["auroc_high"]) == (0.5, 0.5, 0.5)
    assert metrics["best_threshold"] is None


def test_a_class_without_samples_is_left_out_of_means() -> None:
    probabilities, truth = drawn(100, 3)
    seen = truth < 2
    scorer = scored(probabilities[seen], truth[seen], ("a", "b", "c"))
    metrics = scorer.result()
    expected = [sk.roc_auc_score(truth[seen] == k, probabilities[seen, k]) for k in (0, 1)]
    assert metrics["auroc"] == pytest.approx(np.mean(expected))
    assert any("c" in warning for warning in scorer.warnings())


def test_results_by_group_are_those_of_the_group_alone() -> None:
    probabilities, truth = drawn(120)
    site = ["arm" if k % 3 else "leg" for k in range(120)]
    sex = ["" if k % 2 else "female" for k in range(120)]
    scorer = ClassificationScorer(NAMES)
    scorer.add(probabilities, truth, {"site": site, "sex": sex, "id": [str(k) for k in range(120)]})
    metrics = scorer.result()
    leg = np.arange(120) % 3 == 0
    assert metrics["auroc_site_leg"] == pytest.approx(sk.roc_auc_score(truth[leg], probabilities[leg, 1]))
    assert "auroc_sex_" not in metrics
    rows = scorer.tables()["groups"]
    assert [(r["column"], r["value"], r["samples"]) for r in rows if r["column"] != "id"] == [
        ("site", "arm", 80), ("site", "leg", 40), ("sex", "female", 60),
    ]  # fmt: skip
    assert not any(row["column"] == "id" for row in rows)
    assert any("id" in warning and "120" in warning for warning in scorer.warnings())


def test_samples_of_one_patient_widen_the_interval() -> None:
    probabilities, truth = (np.repeat(part, 8, axis=0) for part in drawn(60))
    patients = [f"p{k // 8}" for k in range(480)]

    def width(resample_by: str | None) -> float:
        scorer = ClassificationScorer(NAMES, resample_by=resample_by)
        scorer.add(probabilities, truth, {"patient": patients})
        metrics = scorer.result()
        assert metrics["auroc_low"] is not None
        assert metrics["auroc_high"] is not None
        return metrics["auroc_high"] - metrics["auroc_low"]

    assert width("patient") > 2 * width(None)
    assert width("no such column") == width(None)


@pytest.mark.parametrize("classes", [2, 3])
def test_the_figures_of_a_resample_are_those_of_its_samples_drawn_out(classes: int) -> None:
    probabilities, truth = drawn(40, classes)
    names = tuple("abc"[:classes])
    looked_for = [1] if classes == 2 else range(classes)
    orders = [Ranking(probabilities[:, k], truth == k) for k in looked_for]
    ranked = {"auroc": ranking.auroc}
    figures = Figures(ranked, orders, probabilities, truth, probabilities.argmax(1))
    weights = np.random.default_rng(1).integers(0, 4, (5, 40))
    weights[0] = 1
    weights[4, truth != 1] = 0  # one class alone
    for row, times in zip(figures(weights.astype(np.float64)), weights, strict=True):
        again = scored(np.repeat(probabilities, times, 0), np.repeat(truth, times), names).result()
        for name, value in zip(figures.names, row, strict=True):
            expected = again[name]
            assert np.isnan(value) if expected is None else value == pytest.approx(expected, abs=1e-6), name


def test_every_figure_that_data_decide_has_an_interval_around_it() -> None:
    metrics = scored(*drawn(300)).result()
    for name in (
        "auroc", "pauc_above_tpr80", "sensitivity_at_specificity_90", "specificity_at_sensitivity_95",
        "average_precision", "accuracy", "balanced_accuracy", "sensitivity", "specificity", "brier", "ece",
    ):  # fmt: skip
        low, high = metrics[f"{name}_low"], metrics[f"{name}_high"]
        assert low is not None, name
        assert high is not None, name
        assert low < high, name
        if name != "ece":  # drawn again, few samples stray further from what was said
            assert low <= metrics[name] <= high, name  # type: ignore[operator]
    one_class = scored(*[part[:5] for part in (drawn(9)[0], np.zeros(9, int))]).result()
    assert one_class["brier"] is not None
    assert one_class["balanced_accuracy_low"] is None


def test_tables_are_plain_values_that_agree_with_the_figures() -> None:
    probabilities, truth = drawn(150, 3)
    scorer = scored(probabilities, truth, ("a", "b", "c"))
    tables = json.loads(json.dumps(scorer.tables()))
    assert tables["confusion"] == sk.confusion_matrix(truth, probabilities.argmax(1)).tolist()
    assert sum(row["samples"] for row in tables["reliability"]) == 150
    metrics = scorer.result()
    assert np.mean([row["auroc"] for row in tables["by_class"]]) == pytest.approx(metrics["auroc"])
    error = sum(row["samples"] * abs(row["said"] - row["seen"]) for row in tables["reliability"]) / 150
    assert error == pytest.approx(metrics["ece"])
    x, y = zip(*tables["roc"]["b"], strict=True)
    assert sk.auc(x, y) == pytest.approx(tables["by_class"][1]["auroc"])


def test_the_temperature_makes_too_sure_probabilities_honest() -> None:
    probabilities, truth = drawn(2000)
    scores = torch.from_numpy(np.log(probabilities) * 3)
    task = Classification(NAMES)
    before = scored(task.probabilities(scores).numpy(), truth).result()
    assert before["temperature"] is not None
    task.temperature = before["temperature"]
    after = scored(task.probabilities(scores).numpy(), truth).result()
    assert after["ece"] < before["ece"] / 2  # type: ignore[operator]
    assert after["temperature"] == pytest.approx(1, abs=1e-3)
    assert after["auroc"] == pytest.approx(before["auroc"], abs=1e-3)


def test_probabilities_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(BadValues, match="1 of 4"):
        scored(np.array([[0.5, 0.5], [np.nan, 0.5]], np.float32), np.array([0, 1]))


def test_tiny_groups_are_named_and_have_an_interval_that_shows_it() -> None:
    draw = np.random.default_rng(0)
    truth = np.arange(80) % 2
    p = draw.random((80, 1)).astype(np.float32)
    scorer = ClassificationScorer(("a", "b"))
    site = ["few"] * 6 + ["many"] * 70 + ["one class"] * 4
    truth[76:] = 0
    scorer.add(np.concatenate([1 - p, p], 1), truth, {"site": site})
    (said,) = [text for text in scorer.warnings() if "Groups with fewer" in text]
    assert "site few" in said
    assert "many" not in said
    assert "one class" not in said
    rows = {row["value"]: row for row in scorer.tables()["groups"]}
    assert rows["few"]["high"] - rows["few"]["low"] > rows["many"]["high"] - rows["many"]["low"]
    assert rows["one class"]["low"] is None

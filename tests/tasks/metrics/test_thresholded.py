"""Laws of decisions: figures are scikit-learn's, and undefined ones stay so."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from caudal.tasks.metrics import thresholded
from caudal.tasks.metrics.ranking import Ranking

DECISIONS = st.integers(2, 5).flatmap(
    lambda classes: st.tuples(
        st.just(classes),
        st.lists(
            st.tuples(st.integers(0, classes - 1), st.integers(0, classes - 1)), min_size=1, max_size=40
        ),
    )
)


@given(DECISIONS)
@settings(deadline=None, max_examples=40)
@pytest.mark.filterwarnings("ignore")
def test_figures_of_a_table_are_those_of_scikit_learn(case: tuple[int, list[tuple[int, int]]]) -> None:
    classes, pairs = case
    truth, predicted = (np.array(column) for column in zip(*pairs, strict=True))
    labels = np.arange(classes)
    table = thresholded.confusion(truth, predicted, classes)
    assert (table == sk.confusion_matrix(truth, predicted, labels=labels)).all()
    assert thresholded.accuracy(table) == pytest.approx(sk.accuracy_score(truth, predicted))
    precision, recall, f1, _ = sk.precision_recall_fscore_support(
        truth, predicted, labels=labels, zero_division=np.nan
    )
    np.testing.assert_allclose(thresholded.precision(table), precision, atol=1e-6)
    np.testing.assert_allclose(thresholded.recall(table), recall, atol=1e-6)
    np.testing.assert_allclose(thresholded.f1(table), f1, atol=1e-6)
    if len(set(truth.tolist())) > 1:
        expected = sk.balanced_accuracy_score(truth, predicted)
        assert thresholded.balanced_accuracy(table) == pytest.approx(expected, abs=1e-6)
    else:
        assert np.isnan(thresholded.balanced_accuracy(table))


@given(DECISIONS)
@settings(deadline=None, max_examples=40)
def test_specificity_is_the_recall_of_all_other_classes_together(
    case: tuple[int, list[tuple[int, int]]],
) -> None:
    classes, pairs = case
    truth, predicted = (np.array(column) for column in zip(*pairs, strict=True))
    found = thresholded.specificity(thresholded.confusion(truth, predicted, classes))
    for k in range(classes):
        others = truth != k
        expected = (predicted[others] != k).mean() if others.any() else np.nan
        np.testing.assert_allclose(found[k], expected, atol=1e-9)


@given(
    st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), min_size=2, max_size=40),
    st.sampled_from(["f1", "balanced_accuracy"]),
)
@settings(deadline=None, max_examples=40)
def test_no_other_threshold_is_better_than_the_chosen_one(pairs: list[tuple[float, bool]], by: str) -> None:
    scores = np.array([s for s, _ in pairs], np.float32)
    truth = np.array([t for _, t in pairs])
    chosen = thresholded.best_threshold(Ranking(scores, truth).tally(), by)  # type: ignore[arg-type]
    if truth.all() or not truth.any() or len(set(scores.tolist())) == 1:
        assert chosen is None
        return
    assert chosen is not None
    merit = sk.f1_score if by == "f1" else sk.balanced_accuracy_score
    merits = [merit(truth, scores >= t) for t in scores]
    assert merit(truth, thresholded.called_positive(scores, chosen)) == pytest.approx(max(merits), abs=1e-6)


def test_a_threshold_lies_between_neighbouring_float32_scores() -> None:
    low = np.float32(0.5)
    high = np.nextafter(low, np.float32(1))
    scores, truth = np.array([low, high]), np.array([False, True])
    chosen = thresholded.best_threshold(Ranking(scores, truth).tally())
    assert chosen is not None
    assert float(low) < chosen <= float(high)
    assert thresholded.called_positive(scores, chosen).tolist() == [False, True]

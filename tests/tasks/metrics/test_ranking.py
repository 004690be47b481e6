"""Laws of ranking figures: they are scikit-learn's, ties included, and undefined with one class alone."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from caudal.core.errors import BadValues
from caudal.tasks.metrics import ranking
from caudal.tasks.metrics.ranking import Ranking

SAMPLES = st.lists(
    st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.5000001, 0.9, 1.0]) | st.floats(0, 1), st.booleans()),
    min_size=1,
    max_size=60,
)
Pairs = list[tuple[float, bool]]


def arrays(pairs: Pairs, dtype: type = np.float64) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.bool_]]:
    return np.array([s for s, _ in pairs], dtype), np.array([t for _, t in pairs], np.bool_)


def both_classes(pairs: Pairs) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.bool_]]:
    scores, truth = arrays(pairs)
    assume(truth.any() and not truth.all())
    return scores, truth


@given(SAMPLES)
@settings(deadline=None, max_examples=50)
def test_areas_are_those_of_scikit_learn(pairs: Pairs) -> None:
    scores, truth = both_classes(pairs)
    tally = Ranking(scores, truth).tally()
    assert ranking.auroc(tally) == pytest.approx(sk.roc_auc_score(truth, scores), abs=1e-6)
    expected = sk.average_precision_score(truth, scores)
    assert ranking.average_precision(tally) == pytest.approx(expected, abs=1e-6)


@given(SAMPLES, st.sampled_from([0.5, 0.8, 0.88, 0.95]))
@settings(deadline=None, max_examples=50)
def test_the_partial_area_is_that_of_the_isic_2024_score(pairs: Pairs, tpr: float) -> None:
    scores, truth = both_classes(pairs)
    # As the challenge defines it: classes and scores turned round, then the area up to a false-positive rate.
    most = 1 - tpr
    scaled = sk.roc_auc_score(~truth, -scores, max_fpr=most)
    expected = 0.5 * most**2 + (most - 0.5 * most**2) / 0.5 * (scaled - 0.5)
    found = ranking.pauc_above_tpr(Ranking(scores, truth).tally(), tpr)
    assert found == pytest.approx(expected, abs=1e-6)


def test_the_partial_area_runs_from_nothing_to_what_lies_above_the_line() -> None:
    truth = np.arange(100) % 3 == 0
    assert ranking.pauc_above_tpr(Ranking(truth * 1.0, truth).tally(), 0.8) == pytest.approx(0.2)
    assert ranking.pauc_above_tpr(Ranking(~truth * 1.0, truth).tally(), 0.8) == 0
    assert ranking.pauc_above_tpr(Ranking(truth * 0.0, truth).tally(), 0.8) == pytest.approx(0.02)


@given(SAMPLES, st.sampled_from([0.0, 0.5, 0.9, 0.95, 1.0]))
@settings(deadline=None, max_examples=50)
def test_rates_at_an_operating_point_are_the_best_of_the_roc_curve(pairs: Pairs, least: float) -> None:
    scores, truth = both_classes(pairs)
    tally = Ranking(scores, truth).tally()
    false, found, _ = sk.roc_curve(truth, scores, drop_intermediate=False)
    slack = 1e-9  # 1 - 0.1 is below 0.9
    sensitivity = found[1 - false >= least - slack].max()
    specificity = (1 - false)[found >= least - slack].max()
    assert ranking.sensitivity_at_specificity(tally, least) == pytest.approx(sensitivity, abs=1e-6)
    assert ranking.specificity_at_sensitivity(tally, least) == pytest.approx(specificity, abs=1e-6)


def test_nine_of_ten_is_a_specificity_of_nine_tenths() -> None:
    truth = np.r_[np.zeros(10, np.bool_), np.ones(2, np.bool_)]
    scores = np.r_[np.linspace(0, 0.5, 9), 0.8, 0.7, 0.9]
    tally = Ranking(scores, truth).tally()
    assert ranking.sensitivity_at_specificity(tally, 0.9) == 1.0
    assert ranking.sensitivity_at_specificity(tally, 0.91) == 0.5


@given(SAMPLES)
@settings(deadline=None, max_examples=50)
def test_points_of_the_curve_enclose_the_area(pairs: Pairs) -> None:
    scores, truth = both_classes(pairs)
    tally = Ranking(scores, truth).tally()
    x, y = zip(*ranking.roc_points(tally, most=1000), strict=True)
    assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)
    assert sk.auc(x, y) == pytest.approx(float(ranking.auroc(tally)), abs=1e-6)


def test_a_long_curve_is_thinned_and_keeps_its_ends() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random(5000) < 0.5
    points = ranking.roc_points(Ranking(rng.normal(size=5000) + truth, truth).tally(), most=100)
    assert len(points) == 100
    assert (points[0], points[-1]) == ((0, 0), (1, 1))


FIGURES = [
    ranking.auroc,
    lambda tally: ranking.pauc_above_tpr(tally, 0.8),
    lambda tally: ranking.sensitivity_at_specificity(tally, 0.9),
    lambda tally: ranking.specificity_at_sensitivity(tally, 0.9),
]


@pytest.mark.parametrize("truth", [[True, True], [False, False], []])
def test_with_one_class_alone_nothing_is_made_up(truth: list[bool]) -> None:
    tally = Ranking(np.linspace(0, 1, len(truth)), np.array(truth, np.bool_)).tally()
    assert [bool(np.isnan(figure(tally))) for figure in FIGURES] == [True] * 4
    assert ranking.roc_points(tally) == []


def test_without_positives_there_is_no_average_precision() -> None:
    assert np.isnan(ranking.average_precision(Ranking(np.array([0.5]), np.array([False])).tally()))


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_scores_that_are_no_numbers_are_refused(broken: float) -> None:
    with pytest.raises(BadValues, match="1 of 2 scores") as caught:
        Ranking(np.array([0.5, broken], np.float32), np.array([True, False]))
    assert caught.value.hint


@given(SAMPLES, st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=50)
def test_a_weight_is_so_many_copies_of_a_sample(pairs: Pairs, seed: int) -> None:
    scores, truth = both_classes(pairs)
    times = np.random.default_rng(seed).integers(0, 4, (3, len(scores)))
    together = Ranking(scores, truth).tally(times.astype(np.float64))
    for row in range(3):
        copied = Ranking(np.repeat(scores, times[row]), np.repeat(truth, times[row])).tally()
        for figure in [*FIGURES, ranking.average_precision]:
            np.testing.assert_allclose(figure(together)[row], figure(copied), atol=1e-9)

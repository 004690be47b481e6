"""Laws of calibration: scores are scikit-learn's, and the temperature is the best one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from caudal.core.errors import BadValues
from caudal.tasks.metrics import calibration

CASES = st.tuples(st.integers(2, 5), st.integers(1, 50), st.integers(0, 2**32 - 1))


def drawn(classes: int, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return softmax(rng.normal(size=(count, classes)) * 2, 1).astype(np.float32), rng.integers(
        0, classes, count
    )


@given(CASES)
@settings(deadline=None, max_examples=50)
def test_the_brier_score_is_that_of_scikit_learn(case: tuple[int, int, int]) -> None:
    probabilities, truth = drawn(*case)
    if case[0] == 2:
        expected = sk.brier_score_loss(truth, probabilities[:, 1], pos_label=1, labels=[0, 1])
    else:
        exact = probabilities.astype(np.float64)
        exact /= exact.sum(1, keepdims=True)
        expected = sk.brier_score_loss(truth, exact, labels=list(range(case[0])))
    assert calibration.brier(probabilities, truth) == pytest.approx(expected, abs=1e-6)


@given(
    st.lists(st.tuples(st.floats(0, 1) | st.sampled_from([0.0, 0.1, 0.3, 1.0]), st.booleans()), min_size=1)
)
@settings(deadline=None, max_examples=50)
def test_the_reliability_plot_is_that_of_scikit_learn(pairs: list[tuple[float, bool]]) -> None:
    said, happened = np.array([s for s, _ in pairs]), np.array([h for _, h in pairs])
    found = calibration.reliability(said, happened, bins=10)
    full = found.count > 0
    if happened.any() and not happened.all():
        seen, mean = calibration_curve(happened.astype(int), said, n_bins=10, pos_label=1)
        np.testing.assert_allclose(found.said[full], mean, atol=1e-9)
    else:  # of one class alone scikit-learn says nothing: what was seen is that class, everywhere
        seen = np.full(full.sum(), float(happened[0]))
    np.testing.assert_allclose(found.seen[full], seen, atol=1e-9)
    assert found.count.sum() == len(said)
    assert found.error == pytest.approx(plain_error(said, happened), abs=1e-9)


def plain_error(said: np.ndarray, happened: np.ndarray) -> float:
    """The expected calibration error as Guo et al. (2017) write it, sample by sample: bins (low, high]."""
    total = 0.0
    for k in range(10):
        inside = [
            (s, h)
            for s, h in zip(said, happened, strict=True)
            if np.linspace(0, 1, 11)[k] < s <= np.linspace(0, 1, 11)[k + 1] or (k == 0 and s == 0)
        ]
        if inside:
            confidence = sum(s for s, _h in inside) / len(inside)
            accuracy = sum(bool(h) for _s, h in inside) / len(inside)
            total += len(inside) / len(said) * abs(confidence - accuracy)
    return total


def test_probabilities_that_come_true_have_no_calibration_error() -> None:
    said = np.repeat([0.25, 0.75], 400)
    happened = np.arange(800) % 4 < np.repeat([1, 3], 400)
    assert calibration.reliability(said, happened).error == pytest.approx(0)
    assert calibration.reliability(said, ~happened).error == pytest.approx(0.5)


def test_without_samples_nothing_is_made_up() -> None:
    none = np.zeros(0)
    assert np.isnan(calibration.reliability(none, none.astype(np.bool_)).error)
    assert np.isnan(calibration.brier(np.zeros((0, 2)), none.astype(int)))
    assert calibration.fit_temperature(np.zeros((0, 2)), none.astype(int)) is None


@given(CASES, st.floats(0.2, 5))
@settings(deadline=None, max_examples=40)
def test_no_other_temperature_makes_the_truth_likelier(case: tuple[int, int, int], sharp: float) -> None:
    probabilities, truth = drawn(*case)
    logits = calibration.logits_of(probabilities) * sharp

    def loss(log_t: float) -> float:
        return -float(log_softmax(logits / np.exp(log_t), 1)[np.arange(len(truth)), truth].mean())

    found = calibration.fit_temperature(logits, truth)
    best = minimize_scalar(loss, bounds=(np.log(0.01), np.log(100)), method="bounded")
    if found is None:
        # At the end of the range or beyond: the least loss is that of a guess, or none at all.
        assert best.fun > loss(np.log(100)) - 1e-4 or best.fun < 1e-3 or best.x < np.log(0.011)
    else:
        assert loss(np.log(found)) <= best.fun + 1e-6


def test_one_output_is_two_classes() -> None:
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 2, 500)
    z = (rng.normal(size=500) + truth - 0.5) * 4
    found = calibration.fit_temperature(z, truth)
    assert found == pytest.approx(calibration.fit_temperature(np.stack([0 * z, z], 1), truth))
    assert found is not None
    assert 2 < found < 6  # the scores are four times too sure


@pytest.mark.parametrize("sign", [1, -1])
def test_scores_without_fault_or_without_sense_have_no_temperature(sign: int) -> None:
    truth = np.array([0, 1, 0, 1])
    assert calibration.fit_temperature(sign * (truth - 0.5), truth) is None


def test_a_temperature_leaves_the_order_and_comes_back() -> None:
    probabilities, _ = drawn(3, 20, 1)
    logits = calibration.logits_of(probabilities)
    np.testing.assert_allclose(softmax(logits, 1), probabilities, atol=1e-6)
    assert np.isfinite(calibration.logits_of(np.array([[0.0, 1.0]], np.float32))).all()


def test_probabilities_that_are_no_numbers_are_refused() -> None:
    broken = np.array([[np.nan, 0.5]])
    truth = np.array([1])
    for refuses in (calibration.brier, calibration.fit_temperature):
        with pytest.raises(BadValues):
            refuses(broken, truth)
    with pytest.raises(BadValues):
        calibration.reliability(broken[0], np.array([True, False]))

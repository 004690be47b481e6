"""A probe finds what is planted, says chance where nothing is, and lets no group be on both sides."""

from __future__ import annotations

import numpy as np
import pytest

from caudal.data.shortcuts import probe


def test_what_is_planted_is_found_and_noise_is_not() -> None:
    draw = np.random.default_rng(0)
    classes = np.arange(200) % 2
    found = probe("size", draw.normal(classes[:, None], 0.5, (200, 2)), classes, None, 0)
    assert found is not None
    assert found.auroc > 0.95
    assert found.tells
    noise = probe("size", draw.normal(0, 1, (200, 3)), classes, None, 0)
    assert noise is not None
    assert noise.low < 0.5 < noise.high
    assert not noise.tells


def test_both_ends_against_the_middle_are_found() -> None:
    draw = np.random.default_rng(1)
    classes = np.arange(240) % 2
    x = np.where(classes, 0.0, draw.choice([-1.0, 1.0], 240)) + draw.normal(0, 0.1, 240)
    found = probe("size", x[:, None], classes, None, 0)
    assert found is not None
    assert found.auroc > 0.95


def test_of_more_classes_it_is_the_mean() -> None:
    draw = np.random.default_rng(2)
    classes = np.arange(150) % 3
    found = probe("cast", draw.normal(np.eye(3)[classes], 0.1), classes, None, 0)
    assert found is not None
    assert found.auroc > 0.99


def test_what_a_group_has_alone_is_no_knowledge() -> None:
    draw = np.random.default_rng(3)
    groups = np.arange(200) // 10
    classes = (np.arange(20) % 2)[groups]
    x = draw.normal(0, 1, 20)[groups, None] + draw.normal(0, 1e-3, (200, 1))
    apart = probe("size", x, classes, groups, 0)
    assert apart is not None
    assert not apart.tells


@pytest.mark.parametrize(
    ("x", "classes"),
    [
        (np.ones((40, 2)), np.arange(40) % 2),  # the same everywhere
        (np.arange(40.0)[:, None], np.zeros(40, np.int64)),  # one class
        (np.arange(40.0)[:, None], (np.arange(40) < 3).astype(np.int64)),  # fewer than parts
        (np.zeros((0, 2)), np.zeros(0, np.int64)),
    ],
)
def test_what_cannot_be_probed_is_left_alone(x: np.ndarray, classes: np.ndarray) -> None:
    assert probe("size", x, classes, None, 0) is None


def test_it_equals_a_fitted_logistic_regression() -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    from caudal.data.shortcuts import _logistic

    draw = np.random.default_rng(4)
    x = draw.normal(0, 1, (90, 3))
    positive = draw.random(90) < 1 / (1 + np.exp(-x[:, 0] + 0.4))
    ours = _logistic(x, positive)
    share = positive.mean()
    weights = np.where(positive, 0.5 / share, 0.5 / (1 - share))
    theirs = linear.LogisticRegression(C=1.0, tol=1e-10, max_iter=1000).fit(x, positive, weights)
    np.testing.assert_allclose(ours, np.r_[theirs.intercept_, theirs.coef_[0]], atol=1e-4)

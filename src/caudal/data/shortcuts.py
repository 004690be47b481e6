"""Whether something beside the point tells classes apart: a cross-validated probe on a few numbers a sample.

What is probed (a picture's size, its border, its colour cast) reaches no model from here. A probe that does
better than chance says that a model could learn that instead of what is meant.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from caudal.core.errors import DataError
from caudal.data.sample_files.base import Ints
from caudal.data.sample_split import deal_out
from caudal.tasks.metrics.bootstrap import Bootstrap
from caudal.tasks.metrics.figures import Floats
from caudal.tasks.metrics.ranking import Ranking, auroc

_FOLDS = 5
_MOST = 5000  # samples
_MOST_CLASSES = 20
_RIDGE = 1.0  # as of one more sample that knows nothing
_NEWTON_STEPS = 25


@dataclass(frozen=True)
class Shortcut:
    """How well `name` alone tells classes apart: AUROC (of more than two their mean), 95 % interval."""

    name: str
    auroc: float
    low: float
    high: float

    @property
    def tells(self) -> bool:
        """Whether that is more than chance."""
        return self.low > 0.5


def probe(
    name: str, x_NF: npt.NDArray[np.floating], class_N: Ints, group_N: Ints | None, seed: int
) -> Shortcut | None:
    """Predict classes from a few numbers alone, each part by what the others say; groups stay together.

    `None` where that cannot be done: numbers that are the same everywhere, or too few groups or samples of a
    class.
    """  # fmt: skip
    x_NF, class_N = np.asarray(x_NF[:_MOST], np.float64), class_N[:_MOST]
    group_N = None if group_N is None else group_N[:_MOST]
    kinds = np.unique(class_N)
    if not len(x_NF):
        return None
    x_NF = x_NF[:, x_NF.std(0) > 1e-9 * (1 + np.abs(x_NF).max(0))]
    x_NF = np.concatenate([x_NF, (x_NF - x_NF.mean(0)) ** 2], 1)  # both ends may be alike
    if not x_NF.shape[1] or not 1 < len(kinds) <= _MOST_CLASSES or np.bincount(class_N)[kinds].min() < _FOLDS:
        return None
    try:
        parts = [deal_out(class_N, group_N, len(class_N), seed, _FOLDS, k) for k in range(_FOLDS)]
    except DataError:
        return None
    asked = kinds[1:] if len(kinds) == 2 else kinds
    said_NK = np.zeros((len(class_N), len(asked)))
    for part in parts:
        mean, deviation = x_NF[part.train].mean(0), x_NF[part.train].std(0)
        z_NF = np.clip((x_NF - mean) / np.where(deviation > 0, deviation, 1), -5, 5)
        for k, kind in enumerate(asked):
            weights = _logistic(z_NF[part.train], class_N[part.train] == kind)
            said_NK[part.test, k] = z_NF[part.test] @ weights[1:] + weights[0]
    orders = [Ranking(said_NK[:, k], class_N == kind) for k, kind in enumerate(asked)]

    def figure(weights: Floats | None = None) -> Floats:
        found: Floats = np.mean([auroc(order.tally(weights)) for order in orders], 0)
        return found

    spread = Bootstrap(class_N, group_N, seed=seed).interval(figure)
    if spread is None:
        return None
    return Shortcut(name, float(figure()), *spread)


def _logistic(x_NF: Floats, positive_N: npt.NDArray[np.bool_]) -> Floats:
    """Intercept and weights of a ridge logistic regression, by Newton's method; classes count the same."""
    a_NG = np.concatenate([np.ones((len(x_NF), 1)), x_NF], 1)
    share = positive_N.mean()
    if share in (0, 1):
        return np.zeros(a_NG.shape[1])
    count_N = np.where(positive_N, 0.5 / share, 0.5 / (1 - share))
    ridge = np.full(a_NG.shape[1], _RIDGE)
    ridge[0] = 1e-6
    w = np.zeros(a_NG.shape[1])
    for _step in range(_NEWTON_STEPS):
        p_N = 1 / (1 + np.exp(-np.clip(a_NG @ w, -30, 30)))
        slope = a_NG.T @ (count_N * (p_N - positive_N)) + ridge * w
        curve = (a_NG * (count_N * p_N * (1 - p_N))[:, None]).T @ a_NG + np.diag(ridge)
        step = np.linalg.solve(curve, slope)
        w -= step
        if np.abs(step).max() < 1e-8:
            break
    return w

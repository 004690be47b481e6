"""Laws of intervals: seeded, as wide as theory says, wider for samples that belong together."""

import time

import numpy as np
import pytest

from caudal.tasks.metrics import ranking
from caudal.tasks.metrics.bootstrap import Bootstrap
from caudal.tasks.metrics.figures import Floats
from caudal.tasks.metrics.ranking import Ranking


def case(count: int, seed: int = 0) -> tuple[Floats, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = (rng.random(count) < 0.3).astype(np.int64)
    return np.round(rng.normal(size=count) + truth, 1), truth  # with ties


def interval(
    scores: Floats, truth: np.ndarray, group: np.ndarray | None = None
) -> tuple[float, float] | None:
    order = Ranking(scores, truth == 1)
    return Bootstrap(truth, group).interval(lambda weights: ranking.auroc(order.tally(weights)))


def test_the_interval_is_that_of_a_plain_loop() -> None:
    scores, truth = case(150)
    rng = np.random.default_rng(7)
    drawn = []
    for _ in range(1000):
        no, yes = (rng.choice(scores[truth == k], (truth == k).sum()) for k in (0, 1))
        drawn.append(((yes[:, None] > no).mean() + (yes[:, None] >= no).mean()) / 2)
    found = interval(scores, truth)
    assert found is not None
    assert found == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.015)


def test_a_mean_has_the_interval_of_the_normal_law() -> None:
    values = np.random.default_rng(0).normal(size=900)
    found = Bootstrap(np.zeros(900, np.int64)).interval(lambda weights: weights @ values / 900)
    assert found is not None
    assert found == pytest.approx((values.mean() - 1.96 / 30, values.mean() + 1.96 / 30), abs=0.01)


def test_each_class_keeps_its_size_and_each_group_stays_together() -> None:
    _, truth = case(60)
    group = np.arange(60) // 3
    for weights in Bootstrap(truth)._weights():
        assert (weights[:, truth == 1].sum(1) == (truth == 1).sum()).all()
    for weights in Bootstrap(truth, group)._weights():
        assert (weights.reshape(len(weights), 20, 3) == weights[:, ::3, None]).all()
        assert (weights[:, ::3].sum(1) == 20).all()
        assert (weights[:, truth == 1].sum(1) > 0).all()


def test_copies_of_samples_do_not_narrow_the_interval_of_their_group() -> None:
    scores, truth = case(80)
    few = interval(scores, truth)
    copied = interval(np.repeat(scores, 10), np.repeat(truth, 10), np.repeat(np.arange(80), 10))
    naive = interval(np.repeat(scores, 10), np.repeat(truth, 10))
    assert few is not None
    assert copied is not None
    assert naive is not None
    assert copied[1] - copied[0] == pytest.approx(few[1] - few[0], rel=0.15)
    assert naive[1] - naive[0] < 0.5 * (copied[1] - copied[0])


def test_the_same_seed_gives_the_same_interval() -> None:
    assert interval(*case(50)) == interval(*case(50))


@pytest.mark.parametrize("truth", [[], [0], [0, 0, 1], [1, 1]])
def test_what_cannot_vary_or_is_undefined_has_no_interval(truth: list[int]) -> None:
    assert interval(np.linspace(0, 1, len(truth)), np.array(truth, np.int64)) is None


def test_a_class_in_one_group_alone_has_no_interval() -> None:
    scores, truth = np.linspace(0, 1, 6), np.array([0, 0, 0, 0, 1, 1])
    assert interval(scores, truth) is not None
    assert interval(scores, truth, np.array([0, 1, 2, 3, 4, 4])) is None


def test_a_thousand_resamples_of_ten_thousand_scores_take_no_two_seconds() -> None:
    scores, truth = np.random.default_rng(0).random(10_000), np.arange(10_000) % 5 // 4
    began = time.process_time()  # of this process: others may be busy beside it
    assert interval(scores, truth) is not None
    assert time.process_time() - began < 2

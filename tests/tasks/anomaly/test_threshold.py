"""Laws of thresholds: the false alarms that were asked for, from a stream, without anomalies, always."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from caudal.core.errors import BadValues
from caudal.tasks.anomaly.histogram import RELATIVE_ERROR
from caudal.tasks.anomaly.tail import Tail, fit_tail
from caudal.tasks.anomaly.threshold import KEPT, Threshold, ThresholdSketch

DRAWS = {
    "normal": (lambda g, n: np.abs(g.normal(size=n)), stats.halfnorm()),
    "gamma": (lambda g, n: g.gamma(2.0, size=n), stats.gamma(2.0)),
    "pareto": (lambda g, n: g.pareto(3.0, size=n) + 1, stats.pareto(3.0)),
    "lognormal": (lambda g, n: g.lognormal(0, 0.5, size=n), stats.lognorm(0.5)),
    "uniform": (lambda g, n: g.random(n), stats.uniform()),
}


def sketched(scores: np.ndarray, pieces: int = 1) -> ThresholdSketch:
    sketch = ThresholdSketch()
    for piece in np.array_split(scores, pieces):
        sketch.add(piece)
    return sketch


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize(("count", "rate"), [(3000, 1e-3), (3000, 1e-4), (50_000, 1e-5)])
def test_the_fit_keeps_the_rate_where_scores_alone_cannot_say(name: str, count: int, rate: float) -> None:
    draws, (draw, law) = np.random.default_rng(5), DRAWS[name]
    rates, covered = [], 0
    for _trial in range(10):
        found = sketched(draw(draws, count)).threshold(rate)
        assert found.method == "extreme"
        assert found.remark == ""
        assert found.interval[1] is not None
        assert found.interval[0] <= found.score <= found.interval[1]
        rates.append(law.sf(found.score))
        covered += found.interval[0] <= law.isf(rate) <= found.interval[1]
    assert np.median(rates) < 3 * rate
    if name != "uniform":  # whose scores end at once: there the fit stays above the end
        assert np.median(rates) > rate / 3
        assert covered >= 6


@pytest.mark.parametrize("name", DRAWS)
def test_a_quantile_that_the_scores_fix_is_taken_from_them(name: str) -> None:
    draws = np.random.default_rng(2)
    scores = DRAWS[name][0](draws, 300_000)
    found = sketched(scores, 7).threshold(0.02)
    assert found.method == "quantile"
    assert found.remark == ""
    assert found.score == pytest.approx(np.quantile(scores, 0.98), rel=2 * RELATIVE_ERROR)
    assert found.expected == pytest.approx(0.02, rel=0.1)
    assert found.expected <= 0.02
    assert found.interval[1] is not None
    assert found.interval[0] <= found.score <= found.interval[1]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=300),
    st.sampled_from([0.5, 0.1, 0.01, 1e-6]),
    st.sampled_from(["extreme", "quantile"]),
)
def test_normal_data_never_alarm_more_than_asked_for(scores: list[float], rate: float, method: str) -> None:
    values = np.array(scores)
    found = sketched(values).threshold(rate, method)  # type: ignore[arg-type]
    if found.method == "quantile":
        assert (values > found.score).mean() <= rate
        assert found.score <= values.max()
    assert found.score >= values.min()


@pytest.mark.parametrize("method", ["extreme", "quantile"])
@pytest.mark.parametrize("count", [1, 2, 40, 5000, 50_000])
def test_equal_scores_give_no_alarm(count: int, method: str) -> None:
    found = sketched(np.full(count, 0.37)).threshold(0.001, method)  # type: ignore[arg-type]
    assert found.score == 0.37
    assert found.method == "quantile"
    assert found.expected == 0


def test_a_few_heavily_tied_scores_give_no_alarm_beyond_the_rate() -> None:
    scores = np.repeat([1.0, 2.0, 3.0], [90_000, 9_500, 500])
    found = sketched(scores).threshold(0.01)
    assert (scores > found.score).mean() <= 0.01
    assert 2.0 <= found.score < 2.01


def test_too_few_scores_for_a_fit_say_so_and_give_the_highest() -> None:
    scores = np.linspace(1, 2, 32)
    found = sketched(scores).threshold(0.01)
    assert found.method == "quantile"
    assert "too few" in found.remark
    assert found.score == 2.0
    assert found.interval[1] is None
    assert found.expected_high > 0.05  # 32 scores cannot show 1 %


def test_the_threshold_of_normal_images_is_never_the_lowest_score() -> None:
    scores = np.random.default_rng(0).gamma(3, size=50)
    found = sketched(scores).threshold(0.05)
    assert (scores > found.score).mean() <= 0.05
    assert found.score > np.median(scores)


def test_no_scores_and_scores_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(BadValues):
        ThresholdSketch().threshold(0.01)
    with pytest.raises(BadValues):
        ThresholdSketch().add(np.array([1.0, np.nan]))


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 30_000), st.integers(1, 9), st.integers(0, 99))
def test_a_stream_gives_what_the_whole_gives_and_holds_no_more(count: int, pieces: int, seed: int) -> None:
    scores = np.random.default_rng(seed).gamma(2, size=count)
    whole, parts = sketched(scores), sketched(scores, pieces)
    for rate in (0.3, 0.01, 1e-4):
        assert whole.threshold(rate) == parts.threshold(rate)
    assert parts.nbytes <= ThresholdSketch().nbytes + 8 * KEPT


@given(st.floats(-0.4, 0.9), st.floats(0.01, 100), st.floats(1e-6, 0.09))
def test_rate_and_score_of_a_tail_undo_each_other(shape: float, scale: float, rate: float) -> None:
    tail = Tail(3.0, 0.1, scale, shape)
    assert tail.rate_above(tail.score_at(rate)) == pytest.approx(rate, rel=1e-4)


@pytest.mark.parametrize("shape", [-0.3, 0.0, 0.4])
def test_the_fit_finds_the_tail_that_was_drawn(shape: float) -> None:
    uniform = np.random.default_rng(1).random(20_000)
    excess = 2 * (-np.log(uniform) if shape == 0 else (uniform**-shape - 1) / shape)
    tail = fit_tail(excess, 0.0, 1.0)
    assert tail.shape == pytest.approx(shape, abs=0.04)
    assert tail.scale == pytest.approx(2, rel=0.05)


def test_plain_values_describe_a_threshold_wholly() -> None:
    found = sketched(np.linspace(0, 1, 500)).threshold(0.1)
    assert Threshold(**found.values()) == found

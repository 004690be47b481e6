"""Laws of the figures: counts in bins give what all scores give, up to the error that is stated."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, roc_auc_score

from caudal.tasks.anomaly.curves import area_under_pro, area_under_roc
from caudal.tasks.anomaly.histogram import BINS, RELATIVE_ERROR, ScoreHistogram, bin_of, top_of
from caudal.tasks.anomaly.metrics import AnomalyScorer
from caudal.tasks.anomaly.regions import Regions
from caudal.tasks.anomaly.task import Anomaly
from caudal.tasks.anomaly.threshold import ThresholdSketch


def plain_pro(maps: np.ndarray, masks: np.ndarray, limit: float) -> float:
    """At every distinct score: the mean share found of each region, over the share of normal pixels."""
    regions = [
        (i, labels == k)
        for i, mask in enumerate(masks)
        for count, labels in [cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)]
        for k in range(1, count)
    ]
    rates, overlaps = [0.0], [0.0]
    for score in np.unique(maps)[::-1]:
        above = maps >= score
        rates.append(above[~masks].mean())
        overlaps.append(np.mean([above[i][region].mean() for i, region in regions]))
    cut = [(r, o) for r, o in zip(rates, overlaps, strict=True) if r <= limit]
    cut.append((limit, np.interp(limit, rates, overlaps)))
    x, y = np.array(cut).T
    return float(np.trapezoid(y, x) / limit)


def scenes(seed: int, levels: int) -> tuple[np.ndarray, np.ndarray]:
    """Maps with few or many distinct scores, and masks with a few blobs."""
    draws = np.random.default_rng(seed)
    seeds = (draws.random((3, 24, 30)) < 0.004).astype(np.uint8)
    masks = np.stack([cv2.dilate(spots, np.ones((4, 3))) > 0 for spots in seeds])
    masks[0, 2:4, 2:9] = True
    maps = draws.gamma(2, size=masks.shape) + masks * draws.random(masks.shape) * 2
    return np.ceil(maps * levels) / levels, masks


def scored(maps: np.ndarray, masks: np.ndarray, **thresholds: float) -> AnomalyScorer:
    scorer = AnomalyScorer(**thresholds)
    for i, (scores_HW, mask_HW) in enumerate(zip(maps, masks, strict=True)):
        scorer.add(i, scores_HW, mask_HW.astype(np.uint8))
    return scorer


@settings(deadline=None, max_examples=12)
@given(st.integers(0, 9999), st.sampled_from([1, 5, 20]))
def test_pixel_auroc_and_pro_of_few_levels_are_exact(seed: int, levels: int) -> None:
    maps, masks = scenes(seed, levels)
    result = scored(maps, masks).result()
    assert result["pixel_auroc"] == pytest.approx(roc_auc_score(masks.ravel(), maps.ravel()), abs=1e-9)
    assert result["pro"] == pytest.approx(plain_pro(maps, masks, 0.3), abs=1e-9)


@settings(deadline=None, max_examples=6)
@given(st.integers(0, 9999), st.sampled_from([1e-7, 1.0, 1e6]))
def test_the_stated_error_holds_whatever_the_unit(seed: int, unit: float) -> None:
    maps, masks = scenes(seed, 10**9)
    # An offset puts many scores in one bin.
    maps = (maps + 50) * unit
    result = scored(maps, masks).result()
    for name, right in (
        ("pixel_auroc", roc_auc_score(masks.ravel(), maps.ravel())),
        ("pro", plain_pro(maps, masks, 0.3)),
    ):
        value, error = result[name], result[f"{name}_error"]
        assert value is not None
        assert error is not None
        assert abs(value - right) <= error + 1e-9
        assert error < 0.02


def test_pieces_of_images_give_the_same_as_whole_ones() -> None:
    maps, masks = scenes(1, 10)
    masks[:, 11:13] = False  # no region crosses the cut
    pieces = AnomalyScorer(4.0, 3.0)
    for rows in (slice(0, 12), slice(12, None)):
        for i in range(len(maps)):
            pieces.add(i, maps[i, rows], masks[i, rows].astype(np.uint8))
    whole = scored(maps, masks, image_threshold=4.0, pixel_threshold=3.0)
    found, expected = pieces.result(), whole.result()
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == (None if value is None else pytest.approx(value, abs=1e-12)), name


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 9999), st.integers(1, 13), st.integers(1, 13))
def test_a_region_that_lies_in_several_pieces_counts_once(seed: int, high: int, wide: int) -> None:
    maps, masks = scenes(seed, 10)
    draws = np.random.default_rng(seed)
    masks[1] |= draws.random(masks[1].shape) < 0.3  # rings, hooks and corners
    pieces = AnomalyScorer()
    for i in range(len(maps)):
        for row in range(0, maps.shape[1], high):
            for col in range(0, maps.shape[2], wide):
                part = (i, slice(row, row + high), slice(col, col + wide))
                pieces.add(i, maps[part], masks[part].astype(np.uint8), at=(row, col))
    found, expected = pieces.result(), scored(maps, masks).result()
    for name in ("pro", "pro_error", "regions", "pixel_auroc"):
        assert found[name] == pytest.approx(expected[name], abs=1e-9), name


def test_regions_that_are_complete_are_not_held() -> None:
    regions = Regions()
    wrong = np.zeros((8, 16), np.bool_)
    wrong[2:, 3:5] = True  # reaches the rim below, and nothing goes on there
    held = []
    for row in range(0, 800, 8):
        regions.add(row, 0, wrong, np.zeros(wrong.sum(), np.int64))
        held.append(len(regions._open))
    assert max(held) <= 2  # those of the row above, which the row below may still reach


def test_decisions_at_the_thresholds_are_counted_as_they_are() -> None:
    maps, masks = scenes(3, 10)
    maps, masks = np.concatenate([maps, maps[:2] * 0.8]), np.concatenate([masks, np.zeros_like(masks[:2])])
    result = scored(maps, masks, image_threshold=6.0, pixel_threshold=3.0).result()
    truth, above = masks.any((1, 2)), maps.max((1, 2)) > 6.0
    assert result["f1"] == pytest.approx(f1_score(truth, above))
    assert result["false_alarms"] == pytest.approx(above[~truth].mean())
    assert result["pixel_f1"] == pytest.approx(f1_score(masks.ravel(), (maps > 3).ravel()))
    assert result["anomalous_share"] == pytest.approx((maps > 3).mean())
    assert result["image_auroc"] == pytest.approx(roc_auc_score(truth, maps.max((1, 2))))
    assert result["images"] == 5
    assert result["anomalous_images"] == 3


def test_unknown_and_unscored_pixels_count_nowhere() -> None:
    maps, masks = scenes(4, 10)
    truth = masks.astype(np.uint8)
    truth[:, :5] = 255
    holes = maps.copy()
    holes[:, -3:] = np.nan
    scorer, expected = (
        AnomalyScorer(pixel_threshold=3.0),
        scored(maps[:, 5:-3], masks[:, 5:-3], pixel_threshold=3.0),
    )
    for i in range(len(maps)):
        scorer.add(i, holes[i], truth[i])
    for name in ("pixel_auroc", "pro", "pixel_f1"):
        assert scorer.result()[name] == pytest.approx(expected.result()[name])


def test_normal_images_alone_have_no_auroc_and_are_told_so() -> None:
    scorer = AnomalyScorer(1.0, 1.0)
    scorer.add(0, np.full((4, 4), 0.5))
    scorer.add(1, np.full((4, 4), 0.7), anomalous=False)
    result = scorer.result()
    assert result["image_auroc"] is None
    assert result["pixel_auroc"] is None
    assert result["pro"] is None
    assert result["f1"] is None
    assert result["false_alarms"] == 0
    assert result["anomalous_share"] == 0
    assert result["negative_loss"] == pytest.approx(-0.7)
    assert any("AUROC" in said for said in scorer.warnings())


def test_anomalous_images_without_masks_count_for_images_alone() -> None:
    scorer = AnomalyScorer(1.0, 1.0)
    scorer.add(0, np.full((4, 4), 0.5), anomalous=False)
    scorer.add(1, np.full((4, 4), 2.0), anomalous=True)
    result = scorer.result()
    assert result["image_auroc"] == 1
    assert result["f1"] == 1
    assert result["pixel_auroc"] is None
    assert any("no mask" in said for said in scorer.warnings())


def test_what_is_held_does_not_grow_with_the_pixels() -> None:
    scorer = AnomalyScorer(1.0, 1.0)
    for _piece in range(50):
        scorer.add(0, np.random.default_rng(0).random((64, 64)), np.zeros((64, 64), np.uint8))
    held = [v for v in vars(scorer).values() if isinstance(v, ScoreHistogram | np.ndarray)]
    assert sum(v.nbytes if isinstance(v, np.ndarray) else v.weights.nbytes for v in held) == 3 * 8 * BINS
    assert len(scorer.image_scores()) == 1


@given(st.lists(st.floats(-1e8, 1e8), min_size=2, max_size=50))
def test_bins_keep_the_order_and_hold_what_is_close(scores: list[float]) -> None:
    values = np.sort(np.array(scores))
    bins = bin_of(values)
    assert (np.diff(bins) >= 0).all()
    for value, number in zip(values, bins, strict=True):
        top = top_of(int(number))
        assert value <= top + 1e-300
        assert top - value <= RELATIVE_ERROR * abs(value) * 1.01 + 2.1e-8


def test_an_empty_side_has_no_area() -> None:
    some, none = np.ones(4), np.zeros(4)
    assert area_under_roc(some, none) is None
    assert area_under_roc(none, some) is None
    assert area_under_pro(some, none) is None
    assert area_under_pro(none, some) is None


def test_the_loss_of_a_sample_is_that_of_its_valid_pixels_alone() -> None:
    torch.manual_seed(0)
    x, output = torch.randn(3, 2, 8, 8), torch.randn(3, 2, 8, 8, requires_grad=True)
    valid = torch.rand(3, 8, 8) < 0.6
    valid[2] = False
    loss = Anomaly().loss(output, Anomaly.target(x, valid))
    expected = ((output - x) ** 2).mean(1)
    for i in range(2):
        assert loss[i].item() == pytest.approx(expected[i][valid[i]].mean().item(), rel=1e-5)
    assert loss.shape == (3,)
    assert loss[2] == 0
    loss.sum().backward()  # type: ignore[no-untyped-call]
    assert output.grad is not None
    assert torch.isfinite(output.grad).all()
    assert not output.grad.permute(0, 2, 3, 1)[~valid].any()


def test_the_headline_needs_no_labels_where_there_are_none() -> None:
    task = Anomaly(labelled=False)
    scorer = task.scorer()
    scorer.add(0, np.full((4, 4), 0.5), anomalous=False)
    assert scorer.result()[task.headline] == -0.5
    assert Anomaly(labelled=True).headline == "image_auroc"
    assert task.outputs() == 1


@settings(deadline=None, max_examples=12)
@given(st.integers(0, 9999), st.sampled_from([0.3, 0.01, 1e-4]), st.booleans())
def test_thresholds_set_afterwards_count_as_if_all_were_seen_again(
    seed: int, rate: float, signed: bool
) -> None:
    draws = np.random.default_rng(seed)
    maps = draws.gamma(2, size=(3, 60, 70)).astype(np.float32) - (5 if signed else 0)
    late, sketch = AnomalyScorer(), ThresholdSketch(kept=100)
    for i, scores_HW in enumerate(maps):
        late.add(i, scores_HW, None, False)
        sketch.add(scores_HW)
    pixel = sketch.threshold(rate, "quantile").score
    late.decide(float(np.median(maps.max((1, 2)))), pixel, sketch.above(pixel))
    again = AnomalyScorer(float(np.median(maps.max((1, 2)))), pixel)
    for i, scores_HW in enumerate(maps):
        again.add(i, scores_HW, None, False)
    assert late.result() == again.result()

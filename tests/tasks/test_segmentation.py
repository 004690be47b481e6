"""Scores are what a plain count gives; a loss splits over samples; nothing is scored that is not there."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from caudal.tasks.segmentation.metrics import SegmentationScorer
from caudal.tasks.segmentation.task import Segmentation


def plain_iou(predicted: np.ndarray, truth: np.ndarray, k: int) -> float:
    known = truth != 255
    p, t = (predicted == k) & known, (truth == k) & known
    union = (p | t).sum()
    return float((p & t).sum() / union) if union else float("nan")


@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(2, 4))
@settings(deadline=None)
def test_scores_equal_a_plain_count(seed: int, images: int, classes: int) -> None:
    draw = np.random.default_rng(seed)
    names = tuple(map(str, range(classes)))
    scorer, each = SegmentationScorer(names), []
    for image in range(images):
        truth = draw.choice([*range(classes), 255], (9, 7)).astype(np.uint8)
        predicted = draw.integers(0, classes, (9, 7)).astype(np.uint8)
        for rows in (slice(0, 4), slice(4, 9)):  # pieces of an image count as the whole
            scorer.add(image, predicted[rows], truth[rows])
        each.append([plain_iou(predicted, truth, k) for k in range(1, classes)])
    with np.errstate(all="ignore"), pytest.MonkeyPatch.context():
        rows = [np.nanmean(row) for row in each if not np.isnan(row).all()]
    found = scorer.result()
    assert found["images"] == images
    if found["iou"] is not None:
        assert found["iou"] == pytest.approx(float(np.mean(rows)))


def test_an_all_zero_mask_never_scores_one_without_saying_so() -> None:
    scorer = SegmentationScorer(("0", "1"))
    scorer.add(0, np.zeros((8, 8), np.uint8), np.zeros((8, 8), np.uint8))
    found = scorer.result()
    assert found["iou"] is None
    assert found["iou_1"] is None
    assert found["support_1"] == 0
    assert any("1" in text for text in scorer.warnings())


def test_an_image_without_the_class_does_not_lift_the_mean() -> None:
    scorer = SegmentationScorer(("0", "1"))
    empty = np.zeros((4, 4), np.uint8)
    truth = np.array([[1, 1, 0, 0]] * 4, np.uint8)
    half = np.array([[1, 0, 0, 0]] * 4, np.uint8)
    scorer.add(0, half, truth)
    scorer.add(1, empty, empty)
    assert scorer.result()["iou"] == pytest.approx(0.5)
    scorer.add(2, half, empty)  # found where there is none: that is a 0
    assert scorer.result()["iou"] == pytest.approx(0.25)


def test_the_loss_of_a_batch_is_the_sum_over_its_samples() -> None:
    torch.manual_seed(0)
    task = Segmentation(("a", "b", "c"))
    scores = torch.randn(6, 3, 8, 8, requires_grad=True)
    target = torch.randint(0, 3, (6, 8, 8))
    target[1] = 255
    target[2, :4] = 255
    whole = task.loss(scores, target)
    parts = torch.cat([task.loss(scores[k : k + 2], target[k : k + 2]) for k in (0, 2, 4)])
    assert torch.equal(whole, parts)
    assert whole.shape == (6,)
    whole.sum().backward()  # type: ignore[no-untyped-call]
    assert scores.grad is not None
    assert torch.isfinite(scores.grad).all()
    assert (scores.grad[1] == 0).all()
    assert (scores.grad[2, :, :4] == 0).all()


def test_perfect_scores_lose_almost_nothing() -> None:
    target = torch.randint(0, 2, (3, 16, 16))
    scores = torch.nn.functional.one_hot(target, 2).permute(0, 3, 1, 2).float() * 40
    assert float(Segmentation(("0", "1")).loss(scores, target).max()) < 1e-3

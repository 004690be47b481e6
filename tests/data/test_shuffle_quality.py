"""The effective batch that is predicted is the one that is measured, and training on sorted data works."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import caudal
from caudal.data.shuffle_quality import blocks_for, effective_share, intraclass_correlation
from caudal.data.turns import Turns

CLASSES, SAMPLES, BATCH = 40, 60_000, 64


def measured_share(labels: np.ndarray, block: int, open_blocks: int, epochs: int) -> float:
    """Variance of the class shares of a batch under a perfect shuffle ÷ under this one."""
    ends = np.arange(block, len(labels) + 1, block)
    batches = len(labels) // BATCH
    got, ideal = [], []
    for epoch in range(epochs):
        order = Turns(ends, open_blocks, 1, epoch).draw(0, len(labels)).sample
        mixed = np.random.default_rng(epoch).permutation(len(labels))
        for sequence, shares in ((order, got), (mixed, ideal)):
            table = labels[sequence[: batches * BATCH]].reshape(batches, BATCH)
            shares.append(np.stack([(table == c).mean(1) for c in range(CLASSES)], 1).var(0).sum())
    return float(np.mean(ideal) / np.mean(got))


@pytest.mark.parametrize(("block", "open_blocks"), [(20, 100), (50, 30), (50, 100), (100, 200), (200, 64)])
def test_the_predicted_effective_batch_is_within_a_tenth_of_the_measured_one(
    block: int, open_blocks: int
) -> None:
    labels = np.repeat(np.arange(CLASSES), SAMPLES // CLASSES)  # sorted by class
    groups = list(labels[: SAMPLES // block * block].reshape(-1, block))
    correlation = intraclass_correlation(groups)
    assert correlation > 0.95
    ends = np.arange(block, SAMPLES + 1, block)
    predicted = effective_share(ends, BATCH, open_blocks, correlation)
    assert predicted == pytest.approx(measured_share(labels, block, open_blocks, 4), rel=0.1)


def test_unrelated_labels_have_no_correlation_and_any_shuffle_is_good() -> None:
    draw = np.random.default_rng(0)
    groups = [draw.integers(0, 10, 200) for _ in range(64)]
    assert intraclass_correlation(groups) < 0.01
    assert effective_share(np.arange(200, 60_001, 200), 64, 2, intraclass_correlation(groups)) > 0.8
    assert intraclass_correlation([draw.normal(size=200) for _ in range(64)]) < 0.02


def test_all_blocks_open_is_a_perfect_shuffle() -> None:
    assert effective_share(np.arange(100, 5001, 100), 64, 50, 1.0) > 0.97


@pytest.mark.parametrize("share", [0.5, 0.9, 0.95, 0.99])
def test_the_blocks_that_are_asked_for_are_the_fewest_that_keep_it(share: float) -> None:
    ends = np.arange(100, 200_001, 100)
    count = blocks_for(share, ends, 64, 0.7)
    assert effective_share(ends, 64, count, 0.7) >= share
    assert effective_share(ends, 64, count // 2, 0.7) < share


def accuracy(order: list[np.ndarray], x: np.ndarray, y: np.ndarray) -> float:
    """Softmax regression trained by plain gradient steps on the batches of `order`, scored on all."""
    weights = np.zeros((x.shape[1], int(y.max()) + 1))
    for k, batch in enumerate(order):
        scores = x[batch] @ weights
        p = np.exp(scores - scores.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        p[np.arange(len(batch)), y[batch]] -= 1
        weights -= 1.0 * (1 - k / len(order)) * x[batch].T @ p / len(batch)
    return float(((x @ weights).argmax(1) == y).mean())


def test_training_on_sorted_data_comes_within_half_a_point_of_a_full_shuffle(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    count, classes = 12_000, 12
    y = np.repeat(np.arange(classes), count // classes)
    x = (draw.normal(size=(classes, 24))[y] + 1.6 * draw.normal(size=(count, 24))).astype(np.float32)
    np.savez(tmp_path / "sorted.npz", x=np.repeat(x, 20, 1), y=y, number=np.arange(count))
    streamed, shuffled = [], []
    for seed in range(5):
        with caudal.stream(tmp_path, BATCH, ram="9MiB", seed=seed, samples="rows", epochs=3) as stream:
            assert stream.plan.arena_bytes < 9 * 2**20 < stream.plan.set_bytes
            order = [batch.numpy("number").copy() for batch in stream]
        streamed.append(accuracy(order, x, y))
        draw = np.random.default_rng(seed)
        mixed = np.concatenate([draw.permutation(count) for _epoch in range(3)])
        shuffled.append(accuracy(np.array_split(mixed, len(order)), x, y))
    one_after_the_other = accuracy(np.array_split(np.arange(count), len(order)), x, y)
    # Measured: 0.2 points below; the blocks that are open for a while hold a little more of some classes.
    assert np.mean(streamed) >= np.mean(shuffled) - 0.005
    assert one_after_the_other < np.mean(shuffled) - 0.1

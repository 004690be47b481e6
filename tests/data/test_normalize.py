"""Normalization: robust, the same in training and prediction, never a division by nothing."""

import numpy as np
import pytest
import torch

from caudal.data.augment import augment
from caudal.data.augment_settings import Augmentation
from caudal.data.normalize import Normalization, Statistics, normalize


def of(x_NC: np.ndarray) -> Normalization:
    statistics = Statistics(1, x_NC.shape[1])
    for part in np.array_split(x_NC, 7):
        statistics.add(0, part.astype(np.float32))
    centre, slope, offset, scale = (tuple(map(float, row)) for row in statistics.result(0))
    order = (tuple(range(x_NC.shape[1])),)
    return Normalization(
        layouts=((),), order=order, centre=(centre,), slope=(slope,), offset=(offset,), scale=(scale,)
    )


def apply(normalization: Normalization, x_NC: np.ndarray) -> np.ndarray:
    x = torch.from_numpy(np.ascontiguousarray(x_NC))[None, :, None, :]
    return normalize(x, torch.zeros(1, dtype=torch.long), normalization.tables("cpu"))[0, :, :, 0].T.numpy()


def test_values_come_out_centred_and_of_one_size_whatever_their_units() -> None:
    draw = np.random.default_rng(0)
    x = np.stack([draw.normal(3000, 400, 40_000), draw.gamma(1.2, 1e-4, 40_000)], 1)
    z = apply(of(x), x)
    assert np.abs(z.mean(0)).max() < 0.02
    assert np.abs(z.std(0) - 1).max() < 0.02


def test_a_few_wild_values_do_not_squeeze_the_rest() -> None:
    draw = np.random.default_rng(0)
    x = draw.normal(100, 10, (50_000, 1))
    wild = x.copy()
    wild[::1000] = 1e6
    ordinary = np.array([[80.0], [100.0], [120.0]])
    plain, robust = apply(of(x), ordinary), apply(of(wild), ordinary)
    assert np.ptp(robust) > 0.5 * np.ptp(plain)
    assert np.abs(apply(of(wild), np.array([[1e6]]))).max() < 20


def test_a_band_that_never_changes_becomes_zero() -> None:
    x = np.stack([np.full(1000, 7.0), np.arange(1000.0)], 1)
    z = apply(of(x), x)
    assert np.isfinite(z).all()
    assert (z[:, 0] == 0).all()


def test_filled_holes_become_zero() -> None:
    normalization = of(np.random.default_rng(1).gamma(2, 300, (20_000, 3)))
    assert np.abs(apply(normalization, normalization.fill().reshape(1, 3))).max() < 1e-3


def test_integers_and_floats_of_the_same_value_are_the_same() -> None:
    normalization = of(np.random.default_rng(1).integers(0, 60_000, (5000, 2)))
    values = np.array([[0, 60_000], [17, 40_000]], np.uint16)
    assert np.array_equal(apply(normalization, values), apply(normalization, values.astype(np.float32)))


def test_augmentation_depends_on_the_sample_alone_and_moves_mask_and_image_together() -> None:
    torch.manual_seed(0)
    x = torch.randn(6, 3, 32, 32)
    y = (x[:, 0] > 0).to(torch.uint8)
    samples = np.array([5, 9, 1, 70, 8, 2])
    whole = augment(x, y, Augmentation(), 3, samples, 255)
    part = augment(x[2:4], y[2:4], Augmentation(), 3, samples[2:4], 255)
    assert torch.equal(whole[0][2:4], part[0])
    assert torch.equal(whole[1][2:4], part[1])
    turned = Augmentation(zoom=0, turn_degrees=0, gain=0, shift=0, mix=0, bend=0, invert=0)
    moved, classes = augment(x, y, turned, 3, samples, 255)
    same = (moved[:, 0] > 0) == (classes == 1)
    assert same.float().mean() > 0.999
    assert (classes != 255).all()


def test_no_augmentation_leaves_a_batch_alone() -> None:
    x, y = torch.randn(2, 3, 16, 16), torch.zeros(2, 16, 16, dtype=torch.uint8)
    nothing = Augmentation(flips=False, zoom=0, turn_degrees=0, gain=0, shift=0, mix=0, bend=0, invert=0)
    moved, classes = augment(x, y, nothing, 0, np.array([1, 2]), 255)
    assert torch.equal(moved, x)
    assert torch.equal(classes, y)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_negatives_are_as_many_as_asked_for_and_keep_their_classes(share: float) -> None:
    x, y = torch.randn(400, 2, 4, 4), torch.randint(0, 2, (400, 4, 4), dtype=torch.uint8)
    still = Augmentation(flips=False, zoom=0, turn_degrees=0, gain=0, shift=0, mix=0, bend=0, invert=share)
    moved, classes = augment(x, y, still, 0, np.arange(400), 255)
    negative = (moved == -x).flatten(1).all(1)
    assert torch.equal(moved[~negative], x[~negative])
    assert torch.equal(classes, y)
    assert abs(float(negative.float().mean()) - share) < 0.07

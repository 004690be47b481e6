"""Sequences are changed as their seed, epoch and number say, and no further than they may be."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from caudal.data.augment_rows import augment_rows
from caudal.data.augment_settings import Augmentation

NUMBERS = np.array([True, False])
LENGTHS = st.lists(st.integers(0, 40), min_size=1, max_size=8)


def rows(lengths: list[int]) -> np.ndarray:
    made = np.concatenate([np.arange(n) for n in lengths]) if lengths else np.zeros(0)
    return np.stack([made, made], 1).astype(np.float32)


def changed(lengths: list[int], samples: list[int], epoch: int = 0, **how: float) -> np.ndarray:
    return augment_rows(
        rows(lengths), np.array(lengths), NUMBERS, Augmentation(**how), 7, epoch, np.array(samples)
    )


@given(LENGTHS, st.integers(0, 3))
def test_a_sample_changes_alike_whatever_lies_beside_it(lengths: list[int], epoch: int) -> None:
    samples = list(range(3, 3 + len(lengths)))
    together = changed(lengths, samples, epoch, noise=0.5, slide=0.2)
    alone = [changed([n], [s], epoch, noise=0.5, slide=0.2) for n, s in zip(lengths, samples, strict=True)]
    np.testing.assert_array_equal(together, np.concatenate(alone))


@given(LENGTHS, st.floats(0.0, 0.5))
def test_a_slide_moves_whole_steps_inside_a_sequence_and_repeats_its_ends(
    lengths: list[int], slide: float
) -> None:
    found = changed(lengths, list(range(len(lengths))), slide=slide)
    at = 0
    for n in lengths:
        steps = found[at : at + n, 0]
        at += n
        if n:
            moved = np.unique((np.arange(n) - steps)[(steps > 0) & (steps < n - 1)])
            assert len(moved) <= 1
            assert np.abs(moved).max(initial=0) <= int(slide * n + 0.5)
            assert steps.min() >= 0
            assert steps.max() <= n - 1


def test_noise_is_on_numbers_alone_and_as_large_as_asked() -> None:
    found = changed([20_000], [0], noise=0.3)
    off = found - rows([20_000])
    assert abs(off[:, 0].std() - 0.3) < 0.01
    assert (off[:, 1] == 0).all()
    assert not np.array_equal(found, changed([20_000], [0], 1, noise=0.3))


def test_what_is_missing_stays_missing_and_without_settings_nothing_is_copied() -> None:
    given_rows = np.full((4, 2), np.nan, np.float32)
    four, one = np.array([4]), np.array([0])
    assert np.isnan(augment_rows(given_rows, four, NUMBERS, Augmentation(noise=1), 0, 0, one)).all()
    assert augment_rows(given_rows, four, NUMBERS, Augmentation(), 0, 0, one) is given_rows
    assert augment_rows(given_rows, four, NUMBERS, Augmentation(slide=0.5), 0, 0, one, False) is given_rows

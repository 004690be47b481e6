"""A split tears no group apart, gives every part its share of each class, and does as the data say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caudal.core.errors import BadValues, DataError
from caudal.data.sample_split import called, deal_out, given_split


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.integers(0, 3), min_size=20, max_size=200),
    per_group=st.integers(1, 4),
    folds=st.integers(2, 5),
    seed=st.integers(0, 9),
)
def test_every_sample_is_on_one_side_and_groups_stay_together(
    labels: list[int], per_group: int, folds: int, seed: int
) -> None:
    count = len(labels)
    groups = np.arange(count) // per_group
    held = []
    for fold in range(folds):
        found = deal_out(np.array(labels), groups, count, seed, folds, fold)
        assert not set(found.train) & set(found.test)
        assert sorted([*found.train, *found.test]) == list(range(count))
        assert not set(groups[found.train]) & set(groups[found.test])
        held += found.test.tolist()
    assert sorted(held) == list(range(count))


@settings(max_examples=30, deadline=None)
@given(counts=st.lists(st.integers(5, 60), min_size=2, max_size=4), seed=st.integers(0, 9))
def test_without_groups_every_class_has_its_share_up_to_one_sample(counts: list[int], seed: int) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    found = deal_out(labels, None, len(labels), seed, 5, 0)
    held = np.bincount(labels[found.test], minlength=len(counts))
    assert (np.abs(held - np.array(counts) / 5) <= 1).all()


def test_groups_of_one_class_are_dealt_out_evenly() -> None:
    labels = np.repeat([0, 1], [80, 40])
    groups = np.arange(120) // 4
    for fold in range(5):
        found = deal_out(labels, groups, 120, 3, 5, fold)
        assert np.bincount(labels[found.test]).tolist() == [16, 8]


def test_a_split_of_the_data_is_used_as_it_is() -> None:
    codes = np.array([0, 0, 1, 2, 0, 2])
    found = given_split(codes, ("train", "val", "test"), 0)
    assert found is not None
    assert [found.train.tolist(), found.validation.tolist(), found.test.tolist()] == [[0, 1, 4], [2], [3, 5]]
    assert given_split(codes, ("train", "train", "train"), 0) is None


def test_a_split_that_names_no_part_to_learn_from_is_refused_and_what_it_holds_is_named() -> None:
    with pytest.raises(BadValues, match="a, b, c") as caught:
        given_split(np.array([0, 0, 1, 2]), ("a", "b", "c"), 0)
    assert caught.value.hint
    with pytest.raises(BadValues, match="True"):
        given_split(np.array([0, 1]), called(("False", "True"))[0], 0)


def test_numbers_of_a_split_have_a_meaning_that_is_said() -> None:
    names, said = called(("0", "1", "2"))
    assert names == ("train", "val", "test")
    assert "0 train, 1 val, 2 test" in said[0]
    assert called(("0", "1")) == (("train", "val"), said)
    assert called(("1", "5")) == (("1", "5"), ())


def test_samples_of_unknown_parts_are_left_out_and_counted() -> None:
    found = given_split(np.array([0, 0, 1, 2, -1]), ("train", "test", "spare"), 0)
    assert found is not None
    assert found.test.tolist() == [2]
    assert any("2 samples are in no part" in text for text in found.warnings)


@pytest.mark.parametrize(("count", "share"), [(100, 5), (300, 6), (500, 10), (4000, 10)])
def test_without_a_part_to_choose_by_a_share_is_taken_from_what_is_learned(count: int, share: int) -> None:
    codes = np.repeat([0, 1], [count, 20])
    found = given_split(codes, ("Train", "Test"), 0)
    assert found is not None
    assert len(found.validation) == count // share
    assert set(found.validation) < set(range(count))
    assert not set(found.validation) & set(found.train)
    assert found.test.tolist() == list(range(count, count + 20))


def test_a_part_too_small_to_choose_anything_is_learned_from() -> None:
    codes = np.repeat([0, 1], [400, 20])
    found = given_split(codes, ("train", "test"), 0, fewest=100)
    assert found is not None
    assert found.train.tolist() == list(range(400))
    assert not len(found.validation)
    assert found.test.tolist() == list(range(400, 420))
    assert any("All 400 samples" in text for text in found.warnings)
    large = given_split(np.repeat([0, 1], [1000, 20]), ("train", "test"), 0, fewest=100)
    assert large is not None
    assert len(large.validation) == 100


def test_fewer_groups_than_parts_are_an_error() -> None:
    with pytest.raises(DataError, match="3 samples or groups"):
        deal_out(None, np.array([0, 0, 1, 1, 2]), 5, 0, 5, 0)

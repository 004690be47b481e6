"""The order of samples that lie in blocks: complete, the same from anywhere, and drawn across open blocks."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from caudal.data.permutation import permute
from caudal.data.turns import Turns

sizes = st.lists(st.integers(1, 12), min_size=1, max_size=40)


@given(sizes, st.integers(1, 50), st.integers(0, 3), st.booleans())
def test_an_epoch_gives_every_sample_once(counts: list[int], k: int, epoch: int, shuffle: bool) -> None:
    turns = Turns(np.cumsum(counts), k, 7, epoch, shuffle)
    drawn = turns.draw(0, turns.samples)
    assert sorted(drawn.sample.tolist()) == list(range(sum(counts)))
    if not shuffle:
        assert (np.diff(drawn.sample) == 1).all()


@given(sizes, st.integers(1, 50), st.data())
def test_any_stretch_is_the_same_as_in_the_whole(counts: list[int], k: int, data: st.DataObject) -> None:
    turns = Turns(np.cumsum(counts), k, 7, 0)
    first = data.draw(st.integers(0, turns.samples - 1))
    last = data.draw(st.integers(first + 1, turns.samples))
    whole, part = turns.draw(0, turns.samples), Turns(np.cumsum(counts), k, 7, 0).draw(first, last)
    assert (part.sample == whole.sample[first:last]).all()
    assert (part.visit == whole.visit[first:last]).all()


@given(sizes, st.integers(1, 50), st.integers(1, 9))
def test_a_batch_needs_no_more_open_blocks_than_are_promised(counts: list[int], k: int, batch: int) -> None:
    turns = Turns(np.cumsum(counts), k, 7, 0)
    most = turns.most_open(batch)
    done = 0
    for first in range(0, turns.samples, batch):
        drawn = turns.draw(first, min(first + batch, turns.samples))
        assert drawn.first_open >= done  # what was given up is not asked for again
        assert drawn.visit.min() >= drawn.first_open
        assert drawn.visit.max() < drawn.first_closed
        assert drawn.first_closed - drawn.first_open <= most
        done = drawn.first_open


def test_every_visit_knows_the_block_of_its_samples() -> None:
    ends = np.cumsum(np.random.default_rng(0).integers(1, 9, 60))
    turns = Turns(ends, 10, 3, 1)
    drawn = turns.draw(0, turns.samples)
    block = np.searchsorted(ends, drawn.sample, "right")
    assert (turns.blocks(0, turns.visits)[drawn.visit] == block).all()


def test_epochs_and_seeds_give_other_orders() -> None:
    ends = np.arange(10, 1010, 10)
    orders = [Turns(ends, 8, seed, epoch).draw(0, 1000).sample for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    assert all((a != b).mean() > 0.9 for k, a in enumerate(orders) for b in orders[:k])


def test_batches_are_drawn_across_the_open_blocks_from_the_first_on() -> None:
    ends = np.arange(50, 50 * 401, 50)
    turns = Turns(ends, 40, 0, 0)
    for first in (0, 5_000, turns.samples - 64):
        assert len(np.unique(turns.draw(first, first + 64).visit)) >= 25  # 64 draws from 40 equal blocks: 32


def test_a_part_of_a_million_blocks_takes_no_pass_over_them() -> None:
    turns = Turns(np.arange(1, 1_500_001), 1, 0, 0)
    drawn = turns.draw(1_000_000, 1_000_032)
    assert (drawn.sample == permute(np.arange(1_000_000, 1_000_032), 1_500_000, 0, 0)).all()


@settings(max_examples=30)
@given(st.integers(1, 300), st.integers(0, 5))
def test_a_permutation_is_one(size: int, seed: int) -> None:
    assert sorted(permute(np.arange(size), size, seed, 0).tolist()) == list(range(size))

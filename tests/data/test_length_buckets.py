"""Parts of a step by length hold every sample once, waste little, and never more rows than allowed."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from caudal.data.length_buckets import WASTE, by_length, length_parts


@given(
    lengths=st.lists(st.integers(0, 500), min_size=1, max_size=128),
    most_rows=st.integers(1, 20_000),
)
def test_every_sample_is_in_one_part_and_parts_keep_their_rows(lengths: list[int], most_rows: int) -> None:
    falling = np.array(lengths)[by_length(np.array(lengths))]
    parts = length_parts(falling, most_rows)
    assert [k for part in parts for k in range(part.start, part.stop)] == list(range(len(lengths)))
    real, padded = np.maximum(falling, 1).sum(), 0
    for part in parts:
        rows = (part.stop - part.start) * max(1, int(falling[part.start]))
        assert rows <= most_rows or part.stop - part.start == 1
        padded += rows
    assert real >= (1 - WASTE) * padded - 1e-6


def test_lognormal_lengths_waste_less_than_a_tenth_in_few_parts() -> None:
    draw = np.random.default_rng(0)
    counts = []
    for _step in range(50):
        lengths = np.ceil(draw.lognormal(4, 0.7, 64)).astype(np.int64)
        falling = lengths[by_length(lengths)]
        parts = length_parts(falling, 10**9)
        padded = sum((part.stop - part.start) * int(falling[part.start]) for part in parts)
        assert 1 - falling.sum() / padded < 0.1
        counts.append(len(parts))
    assert np.mean(counts) < 12


def test_samples_of_one_length_stay_as_they_were_drawn() -> None:
    assert by_length(np.full(8, 7)).tolist() == list(range(8))
    assert length_parts(np.full(8, 7), 10**6) == [slice(0, 8)]

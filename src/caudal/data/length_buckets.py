"""Which samples of a step go through a model side by side, so that little of it is padding.

The samples of a step stay those that were drawn: only their order inside the step and the cuts into parts
follow their lengths. So the effective batch is what it was, and the gradient is the same to rounding.
Legend: B samples of a step.
"""

from __future__ import annotations

import numpy as np

from caudal.data.sample_files.base import Ints

WASTE = 0.1  # of all rows that go through the model may be padding
_HALVINGS = 6


def by_length(lengths_B: Ints) -> Ints:
    """The order of a step's samples from the longest down; equal ones as they were drawn."""
    return np.argsort(-lengths_B, kind="stable")


def length_parts(falling_B: Ints, most_rows: int, waste: float = WASTE) -> list[slice]:
    """Cut samples whose lengths fall into few parts; at most `waste` of all their rows is padding.

    No part has more than `most_rows` padded rows; only a sample that is longer alone has more.
    """
    lengths = np.maximum(falling_B, 1)
    real, low, high = int(lengths.sum()), waste, 1.0
    cuts = _greedy(lengths, low, most_rows)
    # A part may waste more where others, as those of one sample, waste less: as much as all together may.
    for _halving in range(_HALVINGS):
        middle = (low + high) / 2
        tried = _greedy(lengths, middle, most_rows)
        padded = sum((cut.stop - cut.start) * int(lengths[cut.start]) for cut in tried)
        if real >= (1 - waste) * padded:
            cuts, low = tried, middle
        else:
            high = middle
    return cuts


def _greedy(lengths_B: Ints, waste: float, most_rows: int) -> list[slice]:
    """Each part takes as many as it can while at most `waste` of it is padding."""
    cuts, first = [], 0
    while first < len(lengths_B):
        rest = lengths_B[first:]
        padded = np.arange(1, len(rest) + 1) * rest[0]
        # The mean of falling lengths falls: once a part is too wide, it stays so.
        fits = (np.cumsum(rest) >= (1 - waste) * padded) & (padded <= most_rows)
        taken = max(1, int(fits.sum()))
        cuts.append(slice(first, first + taken))
        first += taken
    return cuts

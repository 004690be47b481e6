"""Pictures that are nearly the same: copies, resized, saved anew, or with another brightness.

Two are taken for copies if their thumbnails differ far less than each does from others that are merely alike.
Crops, mirror images and other views of the same thing are not found.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from caudal.data.sample_files.base import Ints

Floats = npt.NDArray[np.float32]

_FAR = 0.15  # between thumbnails of length 1: beyond that nothing is a copy
_BY_ALIKE = 0.25  # of the distance to pictures that are alike, where all of a set are (parts on a bench)
_ALIKE = 0.05  # of the other pictures, and at least some: a picture has fewer copies than that
_LEAST_ALIKE = 3
_ROWS = 256


def near_duplicates(grey_NP: Floats) -> Ints:
    """Pairs (count, 2) of rows, the first below the second, of thumbnails with mean 0 and length 1.

    Rows of zeros are like nothing. Takes memory for some hundred × N numbers.
    """
    seen = np.flatnonzero(np.abs(grey_NP).sum(1) > 0)
    thumbs = grey_NP[seen]
    if len(seen) < 2:
        return np.zeros((0, 2), np.int64)
    rank = max(_LEAST_ALIKE, int(_ALIKE * (len(seen) - 1)))
    limit = np.full(len(seen), _FAR)
    if rank < len(seen) - 1:
        alike = [np.partition(far, rank, 1)[:, rank] for _first, far in _distances(thumbs)]
        limit = np.minimum(_FAR, _BY_ALIKE * np.concatenate(alike))
    pairs = []
    for first, far in _distances(thumbs):
        row, column = np.nonzero(far <= np.minimum(limit[first : first + len(far), None], limit))
        keep = column > row + first
        pairs.append(np.stack([row[keep] + first, column[keep]], 1))
    found: Ints = seen[np.concatenate(pairs)].astype(np.int64)
    return found


def _distances(thumbs: Floats) -> Iterator[tuple[int, Floats]]:
    """Some rows at a time: the number of the first, and how far each is from every thumbnail but itself."""
    for first in range(0, len(thumbs), _ROWS):
        some = thumbs[first : first + _ROWS]
        far = np.sqrt(np.maximum(0, 2 - 2 * some @ thumbs.T))
        rows = np.arange(len(some))
        far[rows, rows + first] = np.inf
        yield first, far


def together(groups: Ints | None, pairs: Ints, count: int) -> Ints:
    """Groups (count,) in which the two samples of each pair are in one, with all that were with either."""
    group = np.arange(count) if groups is None else np.unique(groups, return_inverse=True)[1]
    root = list(range(int(group.max()) + 1)) if count else []

    def top(one: int) -> int:
        while root[one] != one:
            root[one] = root[root[one]]
            one = root[one]
        return one

    for a, b in pairs.tolist():
        first, second = sorted((top(int(group[a])), top(int(group[b]))))
        root[second] = first
    return np.array([top(int(one)) for one in group], np.int64)

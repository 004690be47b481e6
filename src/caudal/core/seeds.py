"""Randomness as a pure function: every stream is named and keyed, none is shared.

`generator(seed, "augment", epoch, sample)` gives the same numbers whoever asks, in whatever order and
from whichever thread, so that a resumed run, another thread count or another rank repeats them exactly.

The generator is Philox, a counter-based generator (Salmon et al., "Parallel random numbers: as easy as
1, 2, 3", SC'11), keyed by a BLAKE2 digest of the name and the numbers.
"""

from __future__ import annotations

import hashlib

import numpy as np


def _digest(seed: int, name: str, keys: tuple[int, ...], size: int) -> int:
    text = "\0".join((str(seed), name, *map(str, keys)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=size).digest(), "little")


def generator(seed: int, name: str, *keys: int) -> np.random.Generator:
    """The random stream of that name and those keys."""
    return np.random.Generator(np.random.Philox(key=_digest(seed, name, keys, 16)))


def integer(seed: int, name: str, *keys: int) -> int:
    """One number in [0, 2⁶³), for libraries that take a seed of their own."""
    return _digest(seed, name, keys, 8) >> 1

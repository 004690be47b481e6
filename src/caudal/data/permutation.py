"""A random permutation of 0 … size-1 that needs no memory: any part of it can be asked for alone.

A four-round balanced Feistel network with cycle walking (Black and Rogaway, "Ciphers with arbitrary finite
domains", CT-RSA 2002); its round function is a 64-bit mix (SplitMix64's finalizer, Steele et al. 2014).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from caudal.core.seeds import integer

Ints = npt.NDArray[np.int64]
_ROUNDS = 4


def _mix(values: npt.NDArray[np.uint64], key: int) -> npt.NDArray[np.uint64]:
    with np.errstate(over="ignore"):
        values = values ^ np.uint64(key)
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return values ^ (values >> np.uint64(31))


def permute(numbers: Ints, size: int, seed: int, epoch: int) -> Ints:
    """Where each of `numbers` goes in a random permutation of 0 … size-1."""
    half = np.uint64(max(1, ((size - 1).bit_length() + 1) // 2))
    low = np.uint64((1 << int(half)) - 1)
    keys = [integer(seed, "feistel", epoch, r) for r in range(_ROUNDS)]
    result = numbers.astype(np.uint64)
    todo = np.ones(len(result), bool)
    while todo.any():  # values that fall outside walk on along their cycle; on average less than 4 times
        left, right = result[todo] >> half, result[todo] & low
        for key in keys:
            left, right = right, left ^ (_mix(right, key) & low)
        result[todo] = (left << half) | right
        todo = result >= np.uint64(size)
    return result.astype(np.int64)

"""Fingerprints of what a loader delivered: did each sample come, once, and whole?

The order does not count: the fingerprint of a multiset is the sum of those of its samples. It is taken in a
pass of its own, never while something is timed.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import numpy as np

_MOST = 2**64
MARKS = 14  # squares under a photograph: its number in binary


class Tally:
    """Adds up samples of one kind of set. `mean` is that of `x`, for what cannot be compared bit by bit."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self.samples, self.checksum = 0, 0
        self._sum, self._values = 0.0, 0

    @property
    def mean(self) -> float:
        """Mean of all values of `x` so far."""
        return self._sum / max(1, self._values)

    def add(self, columns: Mapping[str, Any]) -> None:
        """Count the samples of a batch; `columns` have one entry a sample."""
        names = sorted(columns)
        for values in zip(*(columns[name] for name in names), strict=True):
            sample = {name: np.asarray(value) for name, value in zip(names, values, strict=True)}
            self.checksum = (self.checksum + fingerprint(self._kind, sample)) % _MOST
            self.samples += 1
            self._sum += float(sample["x"].sum(dtype=np.float64))
            self._values += sample["x"].size


def fingerprint(kind: str, sample: Mapping[str, np.ndarray]) -> int:
    """One number for a sample, the same however its axes and numbers were laid out.

    Decoders and resizers of pictures differ by design, so a photograph is known by the number drawn under it.
    """
    if kind == "photographs":
        return _mixed(photograph_number(sample["x"]))
    found = 0
    for name in sorted(sample):
        value = sample[name]
        if kind == "scenes" and value.shape[0] < value.shape[-1]:
            value = np.moveaxis(value, 0, -1)  # bands last
        if value.dtype.kind in "iu" and name != "x":
            value = value.astype(np.int64)
        elif value.dtype == np.float64:
            value = value.astype(np.float32)
        found = zlib.crc32(np.ascontiguousarray(value).tobytes(), found)
    return _mixed(found)


def _mixed(number: int) -> int:
    # Sums of plain checksums of like samples agree too easily: they are linear.
    return int.from_bytes(blake2b(number.to_bytes(8, "little"), digest_size=8).digest(), "little")


def photograph_number(x: np.ndarray) -> int:
    """The number in the row of light and dark squares along the bottom (HWC or CHW, of any size)."""
    x_HWC = np.moveaxis(x, 0, -1) if x.shape[0] == 3 else x
    height, width = x_HWC.shape[:2]
    row = x_HWC[int(height * 0.96)].mean(1)
    top = 1.5 if row.max() <= 1.5 else 255.0
    places = ((np.arange(MARKS) + 0.5) * width / MARKS).astype(int)
    return int(((row[places] > top / 2) << np.arange(MARKS)).sum())

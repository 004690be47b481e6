"""Random changes of sequences: noise on their features, and a slide along their steps.

A pure function of seed, epoch and sample: threads, micro-batches and resumes change nothing. Which features
are numbers is told; how they were scaled is not known here. Legend: B samples, R rows of all, G features.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from caudal.core.seeds import integer
from caudal.data.augment_settings import Augmentation
from caudal.data.sample_files.base import Ints


def augment_rows(
    rows_RG: npt.NDArray[np.float32],
    lengths_B: Ints,
    is_number_G: npt.NDArray[np.bool_],
    settings: Augmentation,
    seed: int,
    epoch: int,
    samples_B: Ints,
    may_slide: bool = True,
) -> npt.NDArray[np.float32]:
    """The rows of B samples, one sample after the other, changed; as many as before.

    Noise is of `settings.noise` deviations, on numbers alone. A sample slides by up to the share
    `settings.slide` of its length; what it leaves bare is its first or last row again. A truth of every step
    would have to slide along: then it may not.
    """
    slides = settings.slide > 0 and may_slide
    if not slides and settings.noise <= 0:
        return rows_RG
    moved_B = np.zeros(len(lengths_B), np.int64)
    noise = np.empty(rows_RG.shape if settings.noise > 0 else (0, 0), np.float32)
    first = 0
    for k, (sample, length) in enumerate(zip(samples_B.tolist(), lengths_B.tolist(), strict=True)):
        # Not the counter-based generator that the rest has: of so many numbers this is twice as fast.
        draw = np.random.Generator(np.random.SFC64(integer(seed, "rows", epoch, sample)))
        if slides:
            most = int(settings.slide * length + 0.5)
            moved_B[k] = draw.integers(-most, most + 1)
        if len(noise):
            draw.standard_normal(dtype=np.float32, out=noise[first : first + length])
        first += length
    changed = _slid(rows_RG, lengths_B, moved_B) if slides else rows_RG
    if not len(noise):
        return changed
    noise *= np.where(is_number_G, settings.noise, 0).astype(np.float32)
    noise += changed
    return noise


def _slid(rows_RG: npt.NDArray[np.float32], lengths_B: Ints, moved_B: Ints) -> npt.NDArray[np.float32]:
    firsts_R = np.repeat(np.cumsum(lengths_B) - lengths_B, lengths_B)
    lasts_R = firsts_R + np.repeat(lengths_B, lengths_B) - 1
    return rows_RG[np.clip(np.arange(len(rows_RG)) - np.repeat(moved_B, lengths_B), firsts_R, lasts_R)]

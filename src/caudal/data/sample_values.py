"""Values of one field of samples as one array: what splits, classes and statistics are made from."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from caudal.core.errors import UnreadableFile
from caudal.data.broken import Broken
from caudal.data.open_parts import OpenParts
from caudal.data.sample_files.base import Array, Field, Ints
from caudal.data.sample_set import SampleSet

UNREAD = -1
"""What stands for a whole number that could not be read; NaN for others."""


def field_of(samples: SampleSet, name: str) -> Field | None:
    """The field of that name."""
    return next((one for one in samples.fields if one.name == name), None)


def column(samples: SampleSet, name: str) -> Array:
    """The values of a fixed field for every sample, (samples, …); those of broken blocks are unknown.

    What lies raw in files is read alone; of other files every block is decoded once.
    """
    known = samples.columns.extra.get(name)
    if known is not None:
        return np.asarray(known)
    one = field_of(samples, name)
    assert one is not None
    assert not one.ragged
    unknown = UNREAD if one.dtype.kind == "i" else 0 if one.dtype.kind in "ub" else np.nan
    found = np.full((len(samples), *one.row_shape), unknown, one.dtype)
    for first, last, values in blocks(samples, np.arange(len(samples.columns.block_ends)), (name,)):
        found[first:last] = values[name]
    return found


def blocks(
    samples: SampleSet, numbers: Ints, names: tuple[str, ...]
) -> Iterator[tuple[int, int, dict[str, Array]]]:
    """First and last sample of each of these blocks, and what it holds.

    Broken ones are passed over, and noted in `samples.broken`.
    """
    wanted = [one for one in samples.stored if not samples.raw or one.name in names]
    parts = OpenParts(samples, most=2)
    try:
        for block in numbers.tolist():
            first, last = samples.block_begin(block), int(samples.columns.block_ends[block])
            into = {one.name: np.empty(samples.shape(one, first, last), one.dtype) for one in wanted}
            try:
                parts.read(first, last, into)
            except UnreadableFile as error:
                parts.forget(first)
                name = samples.columns.names[samples.where(first)[0]]
                samples.broken.note(Broken(name, first, last, error.message))
                continue
            extra = {name: samples.columns.extra[name][first:last] for name in samples.columns.extra}
            yield first, last, {**into, **extra}
    finally:
        parts.close()

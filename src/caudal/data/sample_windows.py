"""Windows cut from long sequences: a set whose samples are rows of another's, where these lie in their files.

No row is copied or read for it. What a window has besides is its sequence's: a label, a group, a part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from caudal.core.errors import BadValues, DataError
from caudal.core.messages import _
from caudal.data.sample_files.base import Array, Field, Ints
from caudal.data.sample_index import raw_blocks, with_extra
from caudal.data.sample_set import Columns, SampleSet
from caudal.data.sample_values import UNREAD, blocks, column, field_of


def windows(samples: SampleSet, name: str, length: int, stride: int) -> tuple[SampleSet, Ints]:
    """Windows of `length` rows of the field `name`, one every `stride` rows; and the sequence of each.

    The last one of a sequence ends where it ends; one that is shorter is a window by itself. With it are cut
    all fields that have as many rows in every sample. They are ragged then.

    Raises:
        DataError: the arrays do not lie in the files as they do in memory.
    """
    places = samples.columns.places
    if places is None:
        raise DataError(
            _(
                "No windows can be cut from {path}: its arrays are compressed, or stored in another form."
            ).format(path=samples.root),
            _("Pack the data (caudal pack), or save plain arrays: .npy, np.savez, safetensors."),
        )
    every = np.arange(len(samples))
    lengths = {f.name: _lengths(samples, f, every) for f in samples.stored if f.shape}
    rows = lengths[name]
    cut = {one for one, found in lengths.items() if np.array_equal(found, rows)}
    counts = 1 + -(-np.maximum(rows - length, 0) // stride)
    of = np.repeat(every, counts)
    ends = np.cumsum(counts)
    number = np.arange(len(of)) - np.repeat(ends - counts, counts)
    start = np.minimum(number * stride, np.maximum(rows - length, 0)[of])
    fields: list[Field] = []
    row_ends: dict[str, Ints] = {}
    places_of: dict[str, Ints] = {}
    extra: dict[str, Array] = {}
    for one in samples.fields:
        fields.append(replace(one, shape=(None, *one.shape[1:])) if one.name in cut else one)
        if not one.shape or one.name in samples.columns.extra:
            extra[one.name] = column(samples, one.name)[of]  # read once, and not with every window
            continue
        places_of[one.name] = places[one.name][of]
        if one.name in cut:
            row_ends[one.name] = np.cumsum(np.minimum(rows, length)[of])
            places_of[one.name] = places_of[one.name] + start * fields[-1].row_bytes
        elif one.ragged:
            row_ends[one.name] = np.cumsum(lengths[one.name][of])
    file_ends = ends[samples.columns.file_ends - 1]
    stored = tuple(one for one in fields if one.name not in extra)
    block_ends, file_blocks = raw_blocks(stored, row_ends, file_ends)
    columns = Columns(
        names=samples.columns.names,
        sizes=samples.columns.sizes,
        file_ends=file_ends,
        file_blocks=file_blocks,
        block_ends=block_ends,
        row_ends=row_ends,
        places=places_of,
        extra=extra,
    )
    # Fields that are known stand after those that are read.
    ordered = (*stored, *(one for one in fields if one.name in extra))
    return replace(samples, fields=ordered, columns=columns, overlapping=True), of


def label_windows(samples: SampleSet, name: str, by: Literal["last", "majority"]) -> SampleSet:
    """The set with one value of the ragged field `name` for each window, instead of one for every row.

    The value of the `last` row; or the one that most rows have, of several the smallest; unknown ones (-1)
    do not count.

    Raises:
        BadValues: its rows are no single whole numbers, of which most could be the same.
    """
    one = field_of(samples, name)
    assert one is not None
    assert one.ragged
    if one.row_shape or (by == "majority" and one.dtype.kind not in "iub"):
        raise BadValues(
            _("“{field}” has no single whole number in every row, so that no value is that of most.").format(
                field=name
            ),
            _('Set data.window_label = "steps", or "last" for numbers, in the spec.'),
        )
    unknown = np.nan if one.dtype.kind == "f" else UNREAD
    found: Array = np.full(len(samples), unknown, np.float64 if one.dtype.kind == "f" else np.int64)
    numbers = np.arange(len(samples.columns.block_ends))
    for first, last, values in blocks(samples, numbers, (name,)):
        rows = samples.rows(name, np.arange(first, last))
        some = np.flatnonzero(rows)
        if by == "last":
            found[first + some] = values[name][np.cumsum(rows)[some] - 1]
        else:
            found[first:last] = _majority(values[name], rows)
    kept = replace(
        samples,
        fields=tuple(f for f in samples.fields if f.name != name),
        columns=replace(
            samples.columns,
            row_ends=_without(samples.columns.row_ends, name),
            places=_without(samples.columns.places or {}, name),
        ),
    )
    return with_extra(kept, name, found, one.categories)


def _lengths(samples: SampleSet, one: Field, every: Ints) -> Ints:
    """Rows of a field in every sample."""
    return samples.rows(one.name, every) if one.ragged else np.full(len(every), int(one.shape[0] or 0))


def _majority(values: npt.NDArray[np.int64], rows: Ints) -> Ints:
    """The most frequent value of each run of `rows` values; -1 where none is known."""
    kinds, codes = np.unique(values.astype(np.int64), return_inverse=True)
    counts = np.zeros((len(rows), len(kinds) + 1), np.int64)
    np.add.at(counts, (np.repeat(np.arange(len(rows)), rows), codes.reshape(-1)), 1)
    counts[:, :-1][:, kinds < 0] = 0
    best = counts[:, :-1].argmax(1) if len(kinds) else np.zeros(len(rows), np.int64)
    found: Ints = np.where(counts.max(1) > 0, np.append(kinds, UNREAD)[best], UNREAD)
    return found


def _without(columns: Mapping[str, Ints], name: str) -> dict[str, Ints]:
    return {key: value for key, value in columns.items() if key != name}

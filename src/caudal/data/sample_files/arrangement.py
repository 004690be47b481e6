"""Arrays in a file → the fields of its samples: one sample for each entry of their first axis, or one in all.

Samples of different length lie joined in an array `NAME`, beside a companion `NAME.ends`: whole numbers, one
a sample, the row of `NAME` after its last. How arrays lie in a file is what its reader knows, not this.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from caudal.core.messages import _
from caudal.data.byte_file import ByteFile
from caudal.data.sample_files.base import Array, Field, Ints, Part
from caudal.data.unreadable import unreadable

_ENDS = ".ends"
_MOST_NAMED = 6  # arrays that a message names
_MOST_AXES = 32
_MOST_EMPTY = 1 << 20  # entries of an axis beside an empty one: the file has no byte to show for them


@dataclass(frozen=True, slots=True)
class Stored:
    """An array of a file: `dtype` in native byte order, and the `offset` of its first byte.

    `offset` is `None` where the bytes do not lie as they do in memory.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int | None

    @property
    def row_bytes(self) -> int:
        """Bytes of one entry of the first axis."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class Coding:
    """How arrays that do not lie in the file as in memory are coded, and what decoding them holds beside."""

    codec: str
    scratch_bytes: int = 0


def claimed_bytes(path: Path, array: str, shape: Sequence[object], itemsize: int, held_bytes: int) -> int:
    """The bytes of an array of `shape`, after comparing the claim with the `held_bytes` that are there.

    Raises:
        UnreadableFile: `shape` is none, or claims more than is there.
    """
    counts = [int(n) for n in shape if isinstance(n, int) and n >= 0]
    if len(counts) != len(shape) or len(counts) > _MOST_AXES:
        raise unreadable(path, _("the shape of “{array}” is broken").format(array=array))
    claimed = math.prod(counts) * itemsize
    if claimed > held_bytes:
        raise unreadable(
            path,
            _("“{array}” claims {claimed} bytes where {held} are").format(
                array=array, claimed=claimed, held=held_bytes
            ),
        )
    if claimed == 0 and max(counts) > _MOST_EMPTY:
        raise unreadable(path, _("“{array}” claims many samples without a value").format(array=array))
    return claimed


def whole_file(path: Path, arrays: Sequence[Stored], coding: Coding, left_out: Sequence[str] = ()) -> Part:
    """The arrays as one sample: each is a field, whose first axis may differ in other files.

    Raises:
        UnreadableFile: there is no array.
    """
    if not arrays:
        raise unreadable(path, _("it holds no array of numbers"))
    fields = tuple(Field(a.name, a.dtype, (None, *a.shape[1:]) if a.shape else ()) for a in arrays)
    rows = {a.name: np.array(a.shape[:1], np.int64) for a in arrays if a.shape}
    places = {a.name: np.array([a.offset], np.int64) for a in arrays if a.offset is not None}
    return finished(fields, 1, rows, places, coding, left_out)


def one_by_one(
    path: Path,
    arrays: Sequence[Stored],
    ends: Mapping[str, Ints],
    coding: Coding,
    left_out: Sequence[str] = (),
) -> Part:
    """Samples along the first axis; of the arrays in `ends`, each sample has several rows.

    Raises:
        UnreadableFile: no array, or the arrays count different numbers of samples.
    """
    single = [a.name for a in arrays if not a.shape]
    arrays = [a for a in arrays if a.shape]
    if not arrays:
        raise unreadable(path, _("it holds no array of numbers whose first axis counts samples"), one_each())
    lengths = {a.name: len(ends[a.name]) if a.name in ends else a.shape[0] for a in arrays}
    if len(set(lengths.values())) > 1:
        raise unreadable(
            path,
            _("its arrays count different numbers of samples: {lengths}").format(
                lengths=", ".join(f"{name} {n}" for name, n in list(lengths.items())[:_MOST_NAMED])
            ),
            one_each(),
        )
    samples = lengths[arrays[0].name]
    fields, rows, places = [], {}, {}
    for a in arrays:
        ragged = a.name in ends
        fields.append(Field(a.name, a.dtype, (None, *a.shape[1:]) if ragged else a.shape[1:]))
        starts = np.concatenate([np.zeros(1, np.int64), ends[a.name]]) if ragged else np.arange(samples + 1)
        if ragged:
            rows[a.name] = np.diff(starts)
        if a.offset is not None:
            places[a.name] = a.offset + starts[:-1] * a.row_bytes
    left = [
        _("“{name}” is left out: it is one number, not one a sample.").format(name=name) for name in single
    ]
    return finished(tuple(fields), samples, rows, places, coding, [*left_out, *left])


def finished(
    fields: tuple[Field, ...],
    samples: int,
    rows: Mapping[str, Ints],
    places: Mapping[str, Ints],
    coding: Coding,
    left_out: Sequence[str],
) -> Part:
    """The part of `samples` samples: raw if every field has its places, else one block to decode."""
    if len(places) == len(fields):
        return Part(fields, np.arange(1, samples + 1), rows, places, left_out=tuple(left_out))
    return Part(
        fields,
        ends=np.array([samples] if samples else [], np.int64),
        rows=rows,
        scratch_bytes=coding.scratch_bytes,
        codec=coding.codec,
        left_out=tuple(left_out),
    )


def companions(
    path: Path, arrays: Sequence[Stored], read: Callable[[str], Array]
) -> tuple[list[Stored], dict[str, Ints]]:
    """The arrays that are fields, and the ends of the samples of those that have a companion.

    `read` gives the values of the array of a name.

    Raises:
        UnreadableFile: a companion does not count whole, rising rows up to the last.
    """
    named = {a.name: a for a in arrays}
    ends = {a.name: a for a in arrays if a.name.endswith(_ENDS) and a.name.removesuffix(_ENDS) in named}
    found = {}
    for name, companion in ends.items():
        of = named[name.removesuffix(_ENDS)]
        if len(companion.shape) != 1 or companion.dtype.kind not in "iu" or not of.shape:
            raise unreadable(
                path, _("“{name}” has to be a list of whole numbers, one a sample").format(name=name)
            )
        found[of.name] = checked_ends(path, name, read(name), of.shape[0])
    return [a for a in arrays if a.name not in ends], found


def checked_ends(path: Path, name: str, ends: Array, rows: int) -> Ints:
    """`ends` as int64, after seeing that they rise from 0 to `rows`.

    Raises:
        UnreadableFile: they do not.
    """
    numbers = ends.astype(np.int64)  # unsigned numbers beyond its range turn negative, and are refused below
    before = np.concatenate([np.zeros(1, np.int64), numbers])
    if np.any(before[1:] < before[:-1]) or before[-1] != rows:
        raise unreadable(
            path, _("the numbers in “{name}” do not rise from 0 to {rows}").format(name=name, rows=rows)
        )
    return numbers


def read_stored(file: ByteFile, array: Stored) -> Array:
    """The values of an array whose bytes lie in the file as in memory.

    Raises:
        UnreadableFile: the file ends before.
    """
    assert array.offset is not None
    values = np.empty(array.shape, array.dtype)
    file.read_into(array.offset, bytes_of(values))
    return values


def bytes_of(values: Array) -> memoryview:
    """The writable bytes of a contiguous array, empty ones and new number types too."""
    assert values.flags.c_contiguous
    return values.reshape(-1).view(np.uint8).data


def one_each() -> str:
    """The hint that the files may be one sample each."""
    return _('If every file is one sample, say so with samples="file".')

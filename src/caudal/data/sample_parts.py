"""What many files say of themselves, as columns: a Python object each would be too much for a million.

A worker reads the headers of some hundred files and condenses them at once; `joined` puts the columns of all
workers behind each other. It makes no set of them: that is `sample_index.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from caudal.core.errors import DataError
from caudal.core.messages import _
from caudal.data.sample_files.base import Array, Field, Ints, Part

Texts = tuple[str, ...]


@dataclass(frozen=True)
class Parts:
    """The parts of the files that hold a sample, in their order.

    `name` and `fields` are the first file's. `files` are their numbers in the listing, `sizes` their bytes,
    `counts` and `blocks` how many samples and blocks each holds, `ends` those of its blocks, counted in the
    file. `rows`, `places` and `checks` are those of `Part`, behind each other. `categories[field]` are the
    texts of each file, for fields that have any; `extra` is what each knows without being read, if any does.
    """

    name: str
    fields: tuple[Field, ...]
    files: Ints
    sizes: Ints
    counts: Ints
    blocks: Ints
    ends: Ints
    rows: Mapping[str, Ints]
    places: Mapping[str, Ints] | None
    checks: npt.NDArray[np.uint32] | None
    categories: Mapping[str, list[Texts]]
    extra: list[Mapping[str, tuple[Array, Texts]]]
    left_out: frozenset[str]
    scratch_bytes: int

    def __len__(self) -> int:
        return len(self.files)


def condensed(name: str, files: Sequence[int], sizes: Sequence[int], parts: Sequence[Part]) -> Parts:
    """The columns of some parts, at least one, each with samples; `name` is that of the first.

    All have the same fields but for their categories.
    """
    fields = parts[0].fields
    raw = [one.places for one in parts if one.places is not None]
    places = None
    if len(raw) == len(parts):
        places = {f.name: _small(np.concatenate([places[f.name] for places in raw])) for f in fields}
    checks = [one.checks for one in parts if one.checks is not None]
    known = any(one.extra for one in parts)
    return Parts(
        name,
        fields,
        _small(np.array(files, np.int64)),
        _small(np.array(sizes, np.int64)),
        _small(np.array([one.samples for one in parts], np.int64)),
        _small(np.array([len(one.ends) for one in parts], np.int64)),
        _small(np.concatenate([one.ends for one in parts])),
        {f.name: _small(np.concatenate([one.rows[f.name] for one in parts])) for f in fields if f.ragged},
        places,
        np.concatenate(checks) if len(checks) == len(parts) else None,
        {
            f.name: [one.fields[k].categories for one in parts]
            for k, f in enumerate(fields)
            if any(one.fields[k].categories for one in parts)
        },
        [one.extra for one in parts] if known else [],
        frozenset(text for one in parts for text in one.left_out),
        max(one.scratch_bytes for one in parts),
    )


def joined(pieces: Sequence[Parts]) -> Parts:
    """The columns of all pieces, at least one, behind each other.

    Raises:
        DataError: their fields differ.
    """
    first = pieces[0]
    for one in pieces:
        check_fields(first.name, first.fields, one.name, one.fields)
    fields = first.fields
    raw = [one.places for one in pieces if one.places is not None]
    checks = [one.checks for one in pieces if one.checks is not None]
    named = dict.fromkeys(name for one in pieces for name in one.categories)
    known = any(one.extra for one in pieces)
    return Parts(
        first.name,
        fields,
        _column([one.files for one in pieces]),
        _column([one.sizes for one in pieces]),
        _column([one.counts for one in pieces]),
        _column([one.blocks for one in pieces]),
        _column([one.ends for one in pieces]),
        {f.name: _column([one.rows[f.name] for one in pieces]) for f in fields if f.ragged},
        {f.name: _column([places[f.name] for places in raw]) for f in fields}
        if len(raw) == len(pieces)
        else None,
        np.concatenate(checks) if len(checks) == len(pieces) else None,
        {n: [of for one in pieces for of in one.categories.get(n, [()] * len(one))] for n in named},
        [of for one in pieces for of in one.extra or [{}] * len(one)] if known else [],
        frozenset().union(*(one.left_out for one in pieces)),
        max(one.scratch_bytes for one in pieces),
    )


def check_fields(a: str, fields_a: tuple[Field, ...], b: str, fields_b: tuple[Field, ...]) -> None:
    """Nothing, where the files `a` and `b` have the same fields.

    Raises:
        DataError: they have not.
    """
    if fields_a is fields_b or [_kind(f) for f in fields_a] == [_kind(f) for f in fields_b]:
        return
    raise DataError(
        _("{a} holds {fields_a}, and {b} holds {fields_b}.").format(
            a=a, fields_a=_say(fields_a), b=b, fields_b=_say(fields_b)
        ),
        _("All files of a set have the same fields, with the same dtypes and shapes."),
    )


def _small(numbers: Ints) -> Ints:
    """The same in as few bytes as they need, for as long as they wait for the others."""
    if not len(numbers) or numbers.min() < 0:
        return numbers
    return numbers.astype(np.min_scalar_type(numbers.max()))


def _column(arrays: Sequence[Ints]) -> Ints:
    return np.concatenate(arrays, dtype=np.int64)


def _kind(one: Field) -> tuple[object, ...]:
    return one.name, one.dtype, one.shape


def _say(fields: tuple[Field, ...]) -> str:
    return ", ".join(
        f"{f.name} {f.dtype}[{', '.join('…' if n is None else str(n) for n in f.shape)}]" for f in fields
    )

"""Columns of few values as a column of 0 and 1 for each value: what is only a name says nothing by its size.

Atoms by their number and events by their code are such columns. Which ones are is decided by looking at some
of the data; what a model is given of them is said here, and how numbers are scaled is not (`features`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from caudal.core.messages import _
from caudal.data.sample_set import SampleSet
from caudal.data.sample_values import blocks, field_of

Kinds = tuple[tuple[float, ...], ...]
"""Of each column the values that it is told apart by, rising; none: the column is a number."""

_LEAST, _MOST = 3, 32  # whole values; two are 0 and 1 already
_MOST_FRACTIONS = 8  # values of which some are not whole, as orders of bonds
_ROWS_A_VALUE = 32  # so few values have to come back this often
_BLOCKS = 256
_LOOKED_AT_BYTES = 2**26


class Encoding:
    """Rows (…, F) of features as rows (…, `width`): of each column its number, or whether it is each value.

    A value that no kind has is 0 everywhere, and counted in `unknown`; a missing one is NaN everywhere.
    `is_number` (`width`,) tells the columns that are numbers as they come.
    """

    def __init__(self, columns: int, kinds: Kinds = ()) -> None:
        kinds = kinds or ((),) * columns
        assert len(kinds) == columns
        widths = [max(1, len(values)) for values in kinds]
        ends = np.cumsum(widths)
        self.columns, self.width = columns, int(ends[-1])
        self.is_number = np.repeat([not values for values in kinds], widths)
        self._numbers = np.flatnonzero([not values for values in kinds])
        self._kinds = [
            (column, slice(int(end) - width, int(end)), np.array(values))
            for column, (values, width, end) in enumerate(zip(kinds, widths, ends, strict=True))
            if values
        ]
        self.unknown = 0

    def __call__(self, rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Float rows; those without any kinds are the same array."""
        if not self._kinds:
            return rows
        encoded = np.empty((*rows.shape[:-1], self.width), np.float32 if rows.itemsize <= 4 else np.float64)
        encoded[..., self.is_number] = rows[..., self._numbers]
        for column, into, values in self._kinds:
            said = rows[..., column, None]
            there = np.isfinite(said) if rows.dtype.kind == "f" else np.ones(said.shape, np.bool_)
            same = said == values
            self.unknown += int(there.sum() - same.sum())
            encoded[..., into] = np.where(there, same, np.nan)
        return encoded

    def warnings(self) -> list[str]:
        """What must be said of values that no kind has."""
        if not self.unknown:
            return []
        return [
            _("{count} values were not seen in training, and tell the model nothing.").format(
                count=self.unknown
            )
        ]


class Tally:
    """Gathers the values of columns until it is clear which of them are kinds."""

    def __init__(self, columns: int) -> None:
        self._seen: dict[int, npt.NDArray[Any]] = {c: np.zeros(0) for c in range(columns)}
        self._columns, self._rows = columns, 0

    @property
    def is_open(self) -> bool:
        """Whether any column may still be one of kinds."""
        return bool(self._seen)

    def add(self, rows_RF: npt.NDArray[Any]) -> None:
        """Take rows; values that are not finite are missing."""
        self._rows += len(rows_RF)
        for column in list(self._seen):
            values = np.unique(np.concatenate([self._seen[column], np.unique(rows_RF[:, column])]))
            values = values[np.isfinite(values)]
            most = _MOST if (values == np.rint(values)).all() else _MOST_FRACTIONS
            if len(values) > most:
                del self._seen[column]
            else:
                self._seen[column] = values

    def result(self) -> Kinds:
        """The kinds of each column; none at all where every column is a number."""

        def of(column: int) -> tuple[float, ...]:
            values = self._seen.get(column, np.zeros(0))
            few = len(values) >= _LEAST and len(values) * _ROWS_A_VALUE <= self._rows
            return tuple(map(float, values)) if few else ()

        kinds = tuple(of(column) for column in range(self._columns))
        return kinds if any(kinds) else ()


def find_kinds(samples: SampleSet, names: Sequence[str], columns: int) -> Kinds:
    """The kinds of the `columns` features that the fields `names` have in a row, from some of the samples.

    Several fields are rows of the same features. It stops as soon as every column is a number.
    """
    tally, looked_at = Tally(columns), 0
    fields = [one for name in names if (one := field_of(samples, name)) is not None]
    count = len(samples.columns.block_ends)
    chosen = np.unique(np.linspace(0, count - 1, min(count, _BLOCKS)).astype(np.int64))
    # From the middle out: where files are in order, the first ones are alike.
    for _first, _last, found in blocks(samples, np.roll(chosen, len(chosen) // 2), tuple(names)):
        for one in fields:
            tally.add(found[one.name].reshape(-1, columns))
            looked_at += math.prod(found[one.name].shape) * one.dtype.itemsize
        if not tally.is_open or looked_at > _LOOKED_AT_BYTES:
            break
    return tally.result()


def kinds_note(name: str, kinds: Kinds) -> tuple[str, ...]:
    """What a plan says of the columns that are kinds."""
    columns = [str(column) for column, values in enumerate(kinds) if values]
    if not columns:
        return ()
    return (
        _("Of “{field}” the columns {columns} hold few values: each value is a feature of its own.").format(
            field=name, columns=", ".join(columns)
        ),
    )

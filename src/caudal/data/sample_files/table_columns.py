"""A column of a table as a field: what its type becomes, and its values as NumPy's.

Numbers and truth values become scalars, lists of them ragged or fixed vectors, and texts become codes. Where
the columns come from, it does not know.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from caudal.core.errors import UnreadableFile
from caudal.core.messages import _
from caudal.data.sample_files.base import Array, Field
from caudal.data.unreadable import unreadable

MOST_CATEGORIES = 1000
_MOST_AXES = 8

Arrow = Any  # pyarrow has no types of its own


def arrow(path: Path, module: str = "pyarrow") -> Any:
    """A module of pyarrow.

    Raises:
        UnreadableFile: it is not installed, so that the table at `path` cannot be read.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise unreadable(
            path,
            _("tables need pyarrow, which is not installed"),
            _("Install it: pip install 'caudal[tables]'."),
        ) from None


@contextmanager
def table_errors(path: Path) -> Iterator[None]:
    """Make an `UnreadableFile` of whatever pyarrow says of a broken file."""
    try:
        yield
    except (UnreadableFile, AssertionError):
        raise
    except Exception as error:  # pyarrow raises of many kinds, most of them its own
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise unreadable(path, _("the table is broken ({why})").format(why=why)) from error


def is_text(path: Path, kind: Arrow) -> bool:
    """Whether a column of arrow type `kind` holds text."""
    types = arrow(path).types
    if types.is_dictionary(kind):
        return is_text(path, kind.value_type)
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def is_ragged(path: Path, kind: Arrow) -> bool:
    """Whether a column of arrow type `kind` holds lists of different length."""
    types = arrow(path).types
    return bool(types.is_list(kind) or types.is_large_list(kind))


def number_field(path: Path, name: str, kind: Arrow, whole: bool, nulls: bool) -> Field | None:
    """The field of a column of numbers or of lists of numbers; `None` for all other columns.

    With `whole` the column is the first axis of the field. With `nulls` some number is missing: it becomes
    NaN, so that whole numbers become float64.
    """
    types = arrow(path).types
    shape: list[int | None] = [None] if whole else []
    if is_ragged(path, kind) and not whole:
        shape, kind = [None], kind.value_type
    while types.is_fixed_size_list(kind) and len(shape) < _MOST_AXES:
        shape, kind = [*shape, kind.list_size], kind.value_type
    dtype: np.dtype[Any]
    if types.is_boolean(kind):
        dtype = np.dtype(bool)
    elif types.is_integer(kind) or types.is_floating(kind):
        dtype = np.dtype(kind.to_pandas_dtype())
    else:
        return None
    if nulls and dtype.kind != "f":
        dtype = np.dtype(np.float64)
    return Field(name, dtype, tuple(shape))


def text_field(name: str, whole: bool, texts: set[str]) -> Field:
    """The field of a column of text: codes in the order of its different texts."""
    return Field(name, np.dtype(np.int64), (None,) if whole else (), tuple(sorted(texts)))


def different_texts(path: Path, columns: Iterable[Arrow]) -> set[str] | None:
    """The different texts of a column that comes in pieces, the empty one for missing ones.

    `None` if they are more than `MOST_CATEGORIES`.
    """
    texts: set[str] = set()
    for column in columns:
        texts.update(text or "" for text in column.unique().to_pylist())
        if len(texts) > MOST_CATEGORIES:
            return None
    return texts


def left_out(name: str, kind: Arrow) -> str:
    """The sentence on a column that is no field."""
    return _("“{name}” is left out: its values are {kind}, not numbers.").format(name=name, kind=kind)


def left_out_texts(name: str) -> str:
    """The sentence on a column of too many different texts."""
    return _("“{name}” is left out: it has more than {most} different texts.").format(
        name=name, most=MOST_CATEGORIES
    )


def row_lengths(path: Path, name: str, column: Arrow) -> Array:
    """The length of each list of a column, int64.

    Raises:
        UnreadableFile: a list is missing.
    """
    if column.null_count:
        raise _missing(path, name)
    lengths = arrow(path, "pyarrow.compute").list_value_length(column)
    return np.asarray(lengths.to_numpy(zero_copy_only=False), np.int64)


class Filler:
    """Puts the pieces of a column one after another into the array of its field."""

    def __init__(self, path: Path, field: Field, into: Array) -> None:
        self._path, self._field, self._into, self._at = path, field, into, 0

    def add(self, column: Arrow) -> None:
        """Put the values of the next piece.

        Raises:
            UnreadableFile: a missing value where the field has whole numbers, an unknown text, too many rows.
        """
        values = self._values(column)
        if values.size % max(1, int(np.prod(self._into.shape[1:]))) or self._at + len(values) > len(
            self._into
        ):
            raise self._changed()
        self._into[self._at : self._at + len(values)] = values
        self._at += len(values)

    def finish(self) -> None:
        """See that all has been put.

        Raises:
            UnreadableFile: rows are missing.
        """
        if self._at != len(self._into):
            raise self._changed()

    def _changed(self) -> UnreadableFile:
        return unreadable(
            self._path, _("it is not what it was when it was indexed"), _("Index the data again.")
        )

    def _values(self, column: Arrow) -> Array:
        """One entry a row of the field's array."""
        types = arrow(self._path).types
        if self._field.categories:
            return self._codes(column)
        row: list[int] = []
        if is_ragged(self._path, column.type):
            column = self._flat(column)
        while types.is_fixed_size_list(column.type):
            row, column = [*row, column.type.list_size], self._flat(column)
        if column.null_count and self._field.dtype.kind != "f":
            raise _missing(self._path, self._field.name)
        if types.is_null(column.type):
            return np.full(len(column), np.nan)
        if types.is_boolean(column.type):
            column = column.cast("uint8")
        values: Array = column.to_numpy(zero_copy_only=False)  # missing numbers become NaN
        return values.reshape(-1, *row) if row else values

    def _flat(self, column: Arrow) -> Arrow:
        if column.null_count:
            raise _missing(self._path, self._field.name)
        return column.flatten()

    def _codes(self, column: Arrow) -> Array:
        pa, compute = arrow(self._path), arrow(self._path, "pyarrow.compute")
        texts = column.cast(pa.string()).fill_null("")
        codes = compute.index_in(texts, value_set=pa.array(self._field.categories, pa.string()))
        if codes.null_count:
            raise self._changed()
        return np.asarray(codes.to_numpy(zero_copy_only=False), np.int64)


def _missing(path: Path, name: str) -> UnreadableFile:
    return unreadable(
        path,
        _("a value of “{name}” is missing").format(name=name),
        _("Fill or drop the rows without it, or save the column as float64."),
    )


def check_names(path: Path, names: list[str]) -> None:
    """Refuse a table in which two columns have one name.

    Raises:
        UnreadableFile: so it is.
    """
    counts: Mapping[str, int] = {name: names.count(name) for name in set(names)}
    twice = [name for name in counts if counts[name] > 1]
    if twice:
        raise unreadable(
            path, _("two of its columns are called “{name}”").format(name=twice[0]), _("Rename one of them.")
        )

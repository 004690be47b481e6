"""What the values of a field mean that is learned: classes, labels or numbers, from all that the files hold.

Values are taken block by block, so that memory does not grow with them; the types of the files are kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from caudal.core.errors import BadValues, UsageError
from caudal.core.messages import _
from caudal.data.sample_files.base import Array, Field
from caudal.data.sample_set import SampleSet
from caudal.data.sample_values import UNREAD, blocks, column
from caudal.runs.work.features import Moments, Scaling
from caudal.runs.work.sought import Sought

MOST_CLASSES = 1000
_FEW_NUMBERS = 20  # numbers with a point that are all whole, and no more kinds than this, are classes
_ROWS_AT_ONCE = 2**18


def understand(
    samples: SampleSet,
    one: Field,
    members: npt.NDArray[np.int64],
    positive: str | None = None,
    per_row: bool = False,
) -> tuple[Sought, Array | None]:
    """What the field `one` of the samples `members` holds, and its values if it is one number a sample.

    With `per_row` the first axis of a field that is no ragged one are the rows of a sample.

    Raises:
        BadValues: one class alone, or nothing that is known.
        UsageError: the class `positive` is none of two.
    """
    sought, values = _understand(samples, one, members, per_row)
    return (sought if positive is None else _with_positive(sought, positive)), values


def _with_positive(sought: Sought, positive: str) -> Sought:
    """With that one of two classes as the second."""
    if sought.kind != "binary" or positive not in sought.names:
        raise UsageError(
            _("data.positive is “{name}”, and the classes are: {names}.").format(
                name=positive, names=", ".join(sought.names[:20])
            ),
            _("Name one of two classes, or leave the key out."),
        )
    if positive == sought.names[1]:
        return sought
    return sought.model_copy(update={"names": sought.names[::-1], "values": sought.values[::-1]})


def _understand(
    samples: SampleSet, one: Field, members: npt.NDArray[np.int64], per_row: bool
) -> tuple[Sought, Array | None]:
    if one.shape == ():
        values = column(samples, one.name)
        seen = _Seen(1)
        for first in range(0, len(members), _ROWS_AT_ONCE):
            seen.add(values[members[first : first + _ROWS_AT_ONCE]].reshape(-1, 1))
        return _of_one_number(one, seen), values
    of_rows = one.ragged or per_row
    row_shape = one.row_shape[1:] if per_row and not one.ragged else one.row_shape
    seen = _Seen(math.prod(row_shape))
    for rows in _rows(samples, one, members):
        seen.add(rows.reshape(-1, seen.columns))
    found = _of_one_number(one, seen) if of_rows and row_shape == () else _of_several(one, seen)
    return found.model_copy(update={"per_row": of_rows}), None


def _rows(samples: SampleSet, one: Field, members: npt.NDArray[np.int64]) -> Iterator[Array]:
    """Values of a field of the samples `members`: those of many small blocks together."""
    wanted, held, count = np.zeros(len(samples), np.bool_), list[Array](), 0
    wanted[members] = True
    for first, last, found in blocks(samples, np.arange(len(samples.columns.block_ends)), (one.name,)):
        mine, values = wanted[first:last], found[one.name]
        if not mine.all():
            of_rows = np.repeat(mine, samples.rows(one.name, np.arange(first, last))) if one.ragged else mine
            values = values[of_rows]
        held.append(values)
        count += values.size
        if count >= _ROWS_AT_ONCE:
            yield np.concatenate(held)
            held, count = [], 0
    if held:
        yield np.concatenate(held)


class _Seen:
    """Rows (R, `columns`) as they come: which values there are while they are few; means and deviations.

    `kinds` are finite values, rising; `None` where there are more than could be classes.
    """

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self.kinds: Array | None = None
        self.is_float = False
        self._moments, self._many = Moments(columns), False

    def add(self, rows: Array) -> None:
        """Take rows; NaN and what is infinite are no values."""
        self.is_float = rows.dtype.kind == "f"
        with np.errstate(over="ignore", invalid="ignore"):
            self._moments.add(rows.astype(np.float64))
        if self._many:
            return
        kinds = np.unique(rows)
        kinds = kinds[np.isfinite(kinds)]
        kinds = kinds if self.kinds is None else np.union1d(self.kinds, kinds)
        self._many = len(kinds[kinds != UNREAD]) > MOST_CLASSES
        self.kinds = None if self._many else kinds

    @property
    def any(self) -> bool:
        """Whether there is any value."""
        return self._many or (self.kinds is not None and len(self.kinds) > 0)

    def moments(self) -> Scaling:
        """Of each column."""
        return self._moments.result()


def _of_one_number(one: Field, seen: _Seen) -> Sought:
    """Of one number a sample, step or node: classes, or a number."""
    kinds = seen.kinds
    notes: tuple[str, ...] = ()
    if kinds is not None and not seen.is_float:
        kinds = kinds[kinds > UNREAD]
    if not seen.any or (kinds is not None and not len(kinds)):
        raise _nothing_known(one)
    if seen.is_float and kinds is not None and _few_whole(kinds):
        notes = (_("“{field}” holds few whole numbers: they are taken for classes.").format(field=one.name),)
        if len(kinds[kinds > UNREAD]) > 1 and kinds[0] == UNREAD:
            notes = (*notes, _("-1 in “{field}” is taken for an unknown class.").format(field=one.name))
            kinds = kinds[1:]
    elif seen.is_float or kinds is None:
        return _number(one, seen)
    if len(kinds) < 2:
        raise BadValues(
            _("“{field}” holds one class alone: {value}.").format(
                field=one.name, value=text_of(one, float(kinds[0]))
            ),
            _("There is nothing to tell apart; check the labels, or the folders."),
        )
    names = tuple(text_of(one, float(value)) for value in kinds)
    kind = "binary" if len(kinds) == 2 else "multiclass"
    return Sought(field=one.name, kind=kind, names=names, values=tuple(map(float, kinds)), notes=notes)


def _few_whole(kinds: Array) -> bool:
    return len(kinds) <= _FEW_NUMBERS and bool((kinds == np.rint(kinds)).all())


def _number(one: Field, seen: _Seen) -> Sought:
    if seen.kinds is not None and len(seen.kinds) == 1:
        raise BadValues(
            _("“{field}” is {value} everywhere.").format(field=one.name, value=seen.kinds[0]),
            _("There is nothing to learn; check the data."),
        )
    found = seen.moments()
    return Sought(
        field=one.name,
        kind="regression",
        names=(one.name,),
        means=found.means,
        deviations=found.deviations,
    )


def text_of(one: Field, value: float) -> str:
    """The name of a class: the text behind a field's value, or the number."""
    if one.categories and 0 <= int(value) < len(one.categories):
        return one.categories[int(value)]
    return str(int(value)) if value == int(value) else f"{value:g}"


def _of_several(one: Field, seen: _Seen) -> Sought:
    """Of several numbers a sample, step or node: labels, or numbers."""
    if not seen.any:
        raise _nothing_known(one)
    names = tuple(f"{one.name}{k}" for k in range(seen.columns))
    kinds = seen.kinds
    if kinds is not None and np.isin(kinds, (UNREAD, 0, 1)).all():
        if not len(kinds[kinds > UNREAD]):
            raise _nothing_known(one)
        return Sought(field=one.name, kind="multilabel", names=names)
    found = seen.moments()
    return Sought(
        field=one.name, kind="regression", names=names, means=found.means, deviations=found.deviations
    )


def _nothing_known(one: Field) -> BadValues:
    return BadValues(
        _("“{field}” has no value that is known.").format(field=one.name), _("Check the data's labels.")
    )

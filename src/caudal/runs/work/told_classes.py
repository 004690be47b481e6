"""What other files than those of the training say of the classes that a model knows: matched by their names.

Files number their texts as they come, so a number means one class in one folder and another in the next.
"""

from __future__ import annotations

import math
from collections import Counter

import numpy as np

from caudal.core.errors import DataError
from caudal.core.messages import _
from caudal.data.batches import Batch, Ragged
from caudal.data.sample_files.base import Array, Field
from caudal.data.sample_values import UNREAD
from caudal.runs.work.sought import Sought
from caudal.runs.work.targets_seen import text_of

_MOST_NAMED = 5
_MOST_COUNTED = 1000  # values that are no class, each by itself


def told_by(sought: Sought, one: Field, path: str) -> Sought:
    """What a model learned, as the field `one` of other samples says it.

    Raises:
        DataError: the field has another shape, or texts where numbers were learned.
    """
    _check_shape(sought, one, path)
    found = sought.model_copy(update={"field": one.name})
    if sought.kind not in ("binary", "multiclass"):
        if one.categories:
            raise DataError(
                _("“{field}” in {path} holds texts, and the model learned numbers.").format(
                    field=one.name, path=path
                ),
                _("Give the numbers that belong to the samples."),
            )
        return found
    if not one.categories:
        return found.model_copy(update={"values": tuple(_number(name) for name in sought.names)})
    exact = {text: float(code) for code, text in enumerate(one.categories)}
    alike: dict[float, float] = {}
    for text, code in exact.items():
        if not math.isnan(number := _number(text)):
            alike.setdefault(number, code)
    values = tuple(exact.get(name, alike.get(_number(name), math.nan)) for name in sought.names)
    return found.model_copy(update={"values": values})


def _number(text: str) -> float:
    """The number that a name is: folders may say 01 where a table says 1; NaN if it is none."""
    try:
        value = float(text)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan


def _check_shape(sought: Sought, one: Field, path: str) -> None:
    row_shape = one.row_shape
    if sought.per_row and not one.ragged:
        row_shape = row_shape[1:] if row_shape else (0,)
    wide = len(sought.names) if sought.kind in ("multilabel", "regression") else 1
    if (sought.per_row or not one.ragged) and math.prod(row_shape) == wide:
        return
    raise DataError(
        _(
            "“{field}” in {path} has the shape {shape}, which is not what the model learned ({learned})."
        ).format(
            field=one.name,
            path=path,
            shape=list(one.shape),
            learned=_("for every step or node: {what}").format(what=sought.line())
            if sought.per_row
            else sought.line(),
        ),
        _("Give truths of the form that the model was trained on."),
    )


def without_truth(sought: Sought) -> Sought:
    """What a model learned, where nobody says it of new samples."""
    return sought.model_copy(update={"field": ""})


class Strangers:
    """Counts the values of new samples that are none of a model's classes, as batches go by.

    `known` is how many values are.
    """

    def __init__(self, told: Sought, one: Field | None) -> None:
        """`one` is the field of the new samples that `told` reads; `None`: there is none."""
        self._told, self._field = told, one
        self._counts: Counter[float] = Counter()
        self.unknown = self.known = 0

    def look(self, batch: Batch) -> None:
        """Take the truths of a batch."""
        if self._field is None or self._told.kind not in ("binary", "multiclass"):
            return
        found = batch.numpy(self._field.name)
        values: Array = np.asarray(found.values if isinstance(found, Ragged) else found).ravel()
        there = np.isfinite(values) & (values != UNREAD)
        if values.dtype.kind == "i":
            there &= values > UNREAD
        classes = self._told.classes_of(values)
        strange = values[there & (classes == UNREAD)]
        self.known += int((classes != UNREAD).sum())
        self.unknown += len(strange)
        for value, count in zip(*np.unique(strange, return_counts=True), strict=True):
            if value in self._counts or len(self._counts) < _MOST_COUNTED:
                self._counts[float(value)] += int(count)

    def _named(self) -> str:
        assert self._field is not None
        most = [text_of(self._field, value) for value, _count in self._counts.most_common(_MOST_NAMED)]
        return ", ".join(most) + (" …" if len(self._counts) > _MOST_NAMED else "")

    def warnings(self) -> list[str]:
        """What must be said of them."""
        if not self.unknown:
            return []
        return [
            _("{count} samples, steps or nodes are of no class that the model learned ({names}).").format(
                count=self.unknown, names=self._named()
            )
        ]

    def refuse(self, path: str) -> None:
        """Raise if there were values, and none of them is a class that the model knows.

        Raises:
            DataError: so it is.
        """
        if self.unknown and not self.known:
            raise none_known(self._told, path, self._named())


def none_known(told: Sought, path: str, there: str) -> DataError:
    """What is to be said where new samples have classes of their own."""
    return DataError(
        _("No class in {path} is one that the model learned: there are {there}.").format(
            path=path, there=there
        ),
        _("The model learned {names}: use the same names.").format(names=", ".join(told.names[:20])),
    )


def refuse_others(told: Sought, one: Field, path: str) -> None:
    """Raise if a field's texts are none of a model's classes, before anything is read.

    Raises:
        DataError: so it is.
    """
    if told.values and not np.isfinite(told.values).any():
        shown = ", ".join(one.categories[:_MOST_NAMED]) if one.categories else _("numbers")
        raise none_known(told, path, shown)

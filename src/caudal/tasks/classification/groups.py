"""Columns of groups beside the samples (patient, site, camera), as numbers of four bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from caudal.core.messages import _

_MOST_VALUES = 20


class GroupColumns:
    """Values of each column in the order of the samples; a sample that has none is in no group (-1)."""

    def __init__(self) -> None:
        self._samples = 0
        self._values: dict[str, dict[str, int]] = {}
        self._numbers: dict[str, list[npt.NDArray[np.int32]]] = {}

    def add(self, samples: int, columns: Mapping[str, Sequence[str]]) -> None:
        """Take the next `samples`: of each column, as many values; an empty value is none."""
        for column in dict.fromkeys((*self._values, *columns)):
            if column not in self._values:
                self._values[column] = {}
                self._numbers[column] = [np.full(self._samples, -1, np.int32)]
            known = self._values[column]
            values = columns.get(column, [""] * samples)
            assert len(values) == samples
            numbers = [known.setdefault(value, len(known)) if value else -1 for value in values]
            self._numbers[column].append(np.array(numbers, np.int32))
        self._samples += samples

    def numbers(self, column: str | None) -> npt.NDArray[np.int32] | None:
        """The number of each sample's group (one without is its own), or `None` without such a column."""
        if column is None or column not in self._numbers:
            return None
        numbers = self._joined(column).copy()
        alone = numbers < 0
        numbers[alone] = len(self._values[column]) + np.arange(alone.sum())
        return numbers

    def shown(self) -> list[tuple[str, str, npt.NDArray[np.bool_]]]:
        """(column, value, which samples have it) for columns with few values."""
        return [
            (column, value, self._joined(column) == number)
            for column, values in self._values.items()
            if len(values) <= _MOST_VALUES
            for value, number in sorted(values.items())
        ]

    def warnings(self) -> list[str]:
        """Names the columns that have too many values to be shown apart."""
        return [
            _("Column {column} has {count} values: results by group are shown for {most} or fewer.").format(
                column=column, count=len(values), most=_MOST_VALUES
            )
            for column, values in self._values.items()
            if len(values) > _MOST_VALUES
        ]

    def _joined(self, column: str) -> npt.NDArray[np.int32]:
        self._numbers[column] = [np.concatenate(self._numbers[column])]
        return self._numbers[column][0]

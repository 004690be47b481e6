"""What the values of a mask mean: one class for each, and what is left out."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt

from caudal.core.config import Frozen
from caudal.core.errors import BadValues
from caudal.core.labels import IGNORE
from caudal.core.messages import _
from caudal.data.url import Location

MOST_CLASSES = 64


class Classes(Frozen):
    """The mask value of each class, in the order of class numbers; `ignored` values are left out."""

    values: tuple[int, ...]
    ignored: tuple[int, ...] = ()

    @property
    def count(self) -> int:
        """How many classes there are."""
        return len(self.values)

    def numbers(self, mask_HW: npt.NDArray[Any], path: Location) -> npt.NDArray[np.uint8]:
        """Class numbers (uint8, `IGNORE` where left out) of a mask's values.

        Raises:
            BadValues: the mask holds a value that is no class.
        """
        numbers = np.full(mask_HW.shape, IGNORE, np.uint8)
        known = np.zeros(mask_HW.shape, bool)
        for number, value in enumerate(self.values):
            here = mask_HW == value
            numbers[here] = number
            known |= here
        for value in self.ignored:
            known |= mask_HW == value
        if not known.all():
            wrong = mask_HW[~known][0]
            raise BadValues(
                _("The mask {path} holds the value {value}, which is no class.").format(
                    path=path, value=wrong
                ),
                _("The classes are {classes}; correct the mask, or list the classes in the spec.").format(
                    classes=", ".join(map(str, self.values))
                ),
                path=str(path),
                value=float(wrong),
            )
        return numbers


def count_values(mask_HW: npt.NDArray[Any], path: Location) -> Counter[int]:
    """How often each value stands in a mask.

    Raises:
        BadValues: values are no whole numbers, or there are too many for classes.
    """
    if mask_HW.dtype == np.uint8:
        counts = np.bincount(mask_HW.ravel(), minlength=256)
        found = np.flatnonzero(counts)
        counts = counts[found]
    else:
        found, counts = np.unique(mask_HW[~np.isnan(mask_HW)] if mask_HW.dtype.kind == "f" else mask_HW,
                                  return_counts=True)  # fmt: skip
    if found.dtype.kind == "f" and not (found == np.round(found)).all():
        raise BadValues(
            _("The mask {path} holds {value}, which is no whole number.").format(
                path=path, value=found[found != np.round(found)][0]
            ),
            _("A mask holds class numbers."),
            path=str(path),
        )
    if len(found) > MOST_CLASSES:
        raise BadValues(
            _("The mask {path} holds {count} different values.").format(path=path, count=len(found)),
            _("A mask holds class numbers; was it saved as JPEG, or is it a photograph?"),
            path=str(path),
        )
    return Counter({int(v): int(c) for v, c in zip(found, counts, strict=True)})


def infer(values: set[int]) -> tuple[Classes, str]:
    """The classes behind the values that were found, and what to tell the user of it.

    0 and 255 alone are a background and an object; 255 beside class numbers means “left out”.
    """
    ordered = sorted(values)
    if ordered in ([0, 255], [255]):
        return Classes(values=(0, 255)), _("Mask value 255 is class 1.")
    if 255 in values and max(values - {255}) < MOST_CLASSES:
        kept = tuple(v for v in ordered if v != 255)
        return Classes(values=kept, ignored=(255,)), _("Mask value 255 is left out.")
    return Classes(values=tuple(ordered)), ""

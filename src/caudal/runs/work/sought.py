"""Which field of a set is learned, and what its values mean."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from caudal.core.config import Frozen
from caudal.core.errors import UsageError
from caudal.core.messages import _
from caudal.data.batches import Batch, Ragged
from caudal.data.sample_files.base import Array, Field, Ints
from caudal.data.sample_set import SampleSet
from caudal.data.sample_values import UNREAD, field_of

NAMES = ("label", "y", "target", "class", "labels", "targets")


def joined(found: Ragged, chosen: Ints) -> Array:
    """The rows of some samples, one sample after the other: a copy, as batches lie in an arena."""
    return np.concatenate([found[k] for k in chosen.tolist()])


class Sought(Frozen):
    """The field that is learned. `kind` as `tasks.targets.Target` has it.

    `values` are the files' values of the classes in the order of `names`, NaN of one that the files do not
    have; `means` and `deviations` are of numbers. With `per_row` there is a truth for every row of a sample.
    """

    field: str
    kind: str
    names: tuple[str, ...]
    values: tuple[float, ...] = ()
    means: tuple[float, ...] = ()
    deviations: tuple[float, ...] = ()
    per_row: bool = False
    notes: tuple[str, ...] = ()

    @property
    def outputs(self) -> int:
        """Numbers that a model gives for each sample or row."""
        return 1 if self.kind == "binary" else len(self.names)

    def classes_of(self, values: Array) -> npt.NDArray[Any]:
        """Class numbers of a field's values; -1 for those that are none. Numbers and labels as they are."""
        if self.kind not in ("binary", "multiclass"):
            return values
        known = np.array(self.values)
        order = np.argsort(known)  # the positive class may have been put last
        place = order[np.searchsorted(known[order], values).clip(max=len(known) - 1)]
        return np.where(known[place] == values, place, UNREAD).astype(np.int64)

    def truth(self, batch: Batch, chosen: Ints, rows_of_all: int | None = None) -> npt.NDArray[Any]:
        """What the model should say of some samples of a batch, as the loss takes it: of rows, of all.

        Unknown (-1, or NaN) where the batch does not say it, as when something new is predicted; of rows
        there are `rows_of_all` then.
        """
        if self.field not in batch:
            count = len(chosen) if rows_of_all is None or not self.per_row else rows_of_all
            if self.values:
                return np.full(count, UNREAD, np.int64)
            return np.full((count, len(self.names)), np.nan, np.float32)
        found = batch.numpy(self.field)
        rows = found[chosen] if not isinstance(found, Ragged) else joined(found, chosen)
        if self.per_row and not isinstance(found, Ragged):  # as many of each sample
            rows = rows.reshape(-1, *rows.shape[2:])
        values = self.classes_of(rows)
        return values.astype(np.float32) if values.dtype.kind == "f" else values.astype(np.int64)

    def line(self) -> str:
        """In words."""
        shown = ", ".join(self.names[:8]) + (" …" if len(self.names) > 8 else "")
        return f"{self.field}: {self.kind} ({shown})"


def find_target(samples: SampleSet, asked: str | None) -> Field:
    """The field that is learned: the one asked for, or the first with a usual name.

    Raises:
        UsageError: there is no such field.
    """
    if asked is not None:
        found = field_of(samples, asked)
        if found is None:
            raise UsageError(
                _("{path} has no field “{name}”.").format(path=samples.root, name=asked),
                _("Its fields are: {names}.").format(names=", ".join(f.name for f in samples.fields)),
            )
        return found
    lower = {one.name.lower(): one for one in samples.fields}
    for name in NAMES:
        if name in lower:
            return lower[name]
    raise UsageError(
        _("Nothing in {path} says what is to be learned.").format(path=samples.root),
        _(
            "Put files into a folder for each class, give a CSV with --labels, or name a field with "
            "data.target in the spec (there are: {names})."
        ).format(names=", ".join(one.name for one in samples.fields) or "-"),
    )

"""Which field of a set is learned, and what its values mean."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from caudal.core.config import Frozen
from caudal.core.errors import BadValues, UsageError
from caudal.core.messages import _
from caudal.data.batches import Batch, Ragged
from caudal.data.sample_files.base import Array, Field, Ints
from caudal.data.sample_set import SampleSet
from caudal.data.sample_values import UNREAD, blocks, column, field_of

NAMES = ("label", "y", "target", "class", "labels", "targets")
_MOST_CLASSES = 1000
_FEW_NUMBERS = 20  # numbers with a point that are all whole, and no more kinds than this, are classes
_LOOKED_AT = 256  # blocks, for targets that are no single number


def joined(found: Ragged, chosen: Ints) -> Array:
    """The rows of some samples, one sample after the other: a copy, as batches lie in an arena."""
    return np.concatenate([found[k] for k in chosen.tolist()])


class Sought(Frozen):
    """The field that is learned. `kind` as `tasks.targets.Target` has it.

    `values` are the files' values of the classes in the order of `names`, of classes and labels; `means` and
    `deviations` are of numbers. With `per_row` there is a truth for every row of a sample.
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

    def truth(self, batch: Batch, chosen: Ints) -> npt.NDArray[Any]:
        """What the model should say of some samples of a batch, as the loss takes it: of rows, of all.

        Unknown (-1, or NaN) where the batch does not say it, as when something new is predicted.
        """
        if self.field not in batch:
            if self.values:
                return np.full(len(chosen), UNREAD, np.int64)
            return np.full((len(chosen), len(self.names)), np.nan, np.float32)
        found = batch.numpy(self.field)
        rows = found[chosen] if not isinstance(found, Ragged) else joined(found, chosen)
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


def understand(
    samples: SampleSet, one: Field, members: npt.NDArray[np.int64], positive: str | None = None
) -> tuple[Sought, Array | None]:
    """What the field `one` of the samples `members` holds, and its values if it is one number a sample.

    Raises:
        BadValues: one class alone, or nothing that is known.
        UsageError: the class `positive` is none of two.
    """
    sought, values = _understand(samples, one, members)
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
    samples: SampleSet, one: Field, members: npt.NDArray[np.int64]
) -> tuple[Sought, Array | None]:
    if one.shape == ():
        values = column(samples, one.name)
        return _scalar(one, values, values[members]), values
    chosen = np.linspace(0, len(samples.columns.block_ends) - 1, _LOOKED_AT).astype(np.int64)
    seen = [
        np.asarray(found[one.name], np.float64).reshape(-1, *one.row_shape)
        for _first, _last, found in blocks(samples, np.unique(chosen), (one.name,))
    ]
    rows = np.concatenate(seen) if seen else np.zeros((0, *one.row_shape))
    if one.ragged and not one.row_shape:
        return _scalar(one, rows, rows).model_copy(update={"per_row": True}), None
    return _wide(one, rows).model_copy(update={"per_row": one.ragged}), None


def _scalar(one: Field, values: Array, mine: Array) -> Sought:
    known = mine[np.isfinite(mine)] if mine.dtype.kind == "f" else mine[mine > UNREAD]
    kinds = np.unique(known)
    if not len(kinds):
        raise BadValues(
            _("“{field}” has no value that is known.").format(field=one.name), _("Check the data's labels.")
        )
    notes: tuple[str, ...] = ()
    whole = mine.dtype.kind in "iub" or bool((known == np.rint(known)).all())
    if mine.dtype.kind == "f" and whole and len(kinds) <= _FEW_NUMBERS:
        notes = (_("“{field}” holds few whole numbers: they are taken for classes.").format(field=one.name),)
    elif mine.dtype.kind == "f" or len(kinds) > _MOST_CLASSES:
        deviation = float(known.std())
        if deviation == 0:
            raise BadValues(
                _("“{field}” is {value} everywhere.").format(field=one.name, value=kinds[0]),
                _("There is nothing to learn; check the data."),
            )
        means, deviations = (float(known.mean()),), (deviation,)
        return Sought(
            field=one.name, kind="regression", names=(one.name,), means=means, deviations=deviations
        )
    if len(kinds) < 2:
        raise BadValues(
            _("“{field}” holds one class alone: {value}.").format(
                field=one.name, value=_name(one, float(kinds[0]))
            ),
            _("There is nothing to tell apart; check the labels, or the folders."),
        )
    names = tuple(_name(one, float(value)) for value in kinds)
    kind = "binary" if len(kinds) == 2 else "multiclass"
    return Sought(field=one.name, kind=kind, names=names, values=tuple(map(float, kinds)), notes=notes)


def _name(one: Field, value: float) -> str:
    if one.categories and 0 <= int(value) < len(one.categories):
        return one.categories[int(value)]
    return str(int(value)) if value == int(value) else f"{value:g}"


def _wide(one: Field, rows: Array) -> Sought:
    flat = rows.reshape(len(rows), -1)
    names = tuple(f"{one.name}{k}" for k in range(flat.shape[1]))
    known = flat[np.isfinite(flat)]
    if len(known) and np.isin(known, (0, 1)).all():
        return Sought(field=one.name, kind="multilabel", names=names)
    with np.errstate(invalid="ignore"):
        means, deviations = np.nanmean(flat, 0), np.nanstd(flat, 0)
    return Sought(
        field=one.name,
        kind="regression",
        names=names,
        means=tuple(map(float, means)),
        deviations=tuple(float(d) if d > 0 else 1.0 for d in deviations),
    )

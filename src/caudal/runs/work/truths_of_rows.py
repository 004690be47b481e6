"""Truths of steps and nodes: whether a field holds one for each, and where samples do not agree."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from caudal.core.errors import BadValues, UsageError
from caudal.core.messages import _
from caudal.data.sample_files.base import Field, Ints
from caudal.data.sample_set import SampleSet
from caudal.data.sample_values import field_of
from caudal.runs.work.kind import Inputs


def asks_for_rows(asked: object, key: str, inputs: Inputs, one: Field) -> tuple[bool, tuple[str, ...]]:
    """Whether a truth is one of every row, and what is to be said of it.

    `asked` is what a spec says under the `key` of a model's configuration: true, false or nothing.

    Raises:
        UsageError: it says one thing and the data another.
    """
    if inputs.config.get(key):  # one graph, of which every sample is a node
        return False, ()
    fixed = not one.ragged and bool(one.shape) and inputs.steps > 0 and one.shape[0] == inputs.steps
    if asked and not (one.ragged or fixed):
        shape = list(one.row_shape) or _("one number")
        raise UsageError(
            _("model.config.{key} is set, and “{field}” has {shape} for a whole sample.").format(
                key=key, field=one.name, shape=shape
            ),
            _("Leave {key} out, or name with data.target a field that has a truth for each.").format(key=key),
        )
    if one.ragged and asked is False:
        raise UsageError(
            _("model.config.{key} is false, and “{field}” has another length in every sample.").format(
                key=key, field=one.name
            ),
            _(
                "Leave {key} out, or name a field with data.target that says something of whole samples."
            ).format(key=key),
        )
    if fixed and asked is None:
        note = _(
            "“{field}” has as many values as a sample has steps; they are learned as {count} outputs of the "
            "whole. Set {key} = true in [model.config] to learn one for each step."
        ).format(field=one.name, count=int(np.prod(one.row_shape)), key=key)
        return False, (note,)
    return one.ragged or bool(asked and fixed), ()


def check_rows(samples: SampleSet, inputs: Inputs, one: Field) -> None:
    """Raise unless a field has as many rows in every sample as what goes into the model.

    Raises:
        BadValues: a sample in which it has not; it is named.
    """
    numbers = np.arange(len(samples))
    mine = _lengths(samples, one, int(one.shape[0] or 0), numbers)
    theirs = _lengths(samples, field_of(samples, inputs.fields[0]), inputs.steps, numbers)
    wrong = np.flatnonzero(mine != theirs)
    if not len(wrong):
        return
    first = int(wrong[0])
    file, within = samples.where(first)
    raise BadValues(
        _("Sample {number} of {path} has {found} rows in “{field}”, and {wanted} in “{other}”.").format(
            number=within,
            path=Path(samples.columns.names[file]).name,
            found=int(mine[first]),
            field=one.name,
            wanted=int(theirs[first]),
            other=inputs.fields[0],
        ),
        _("Give a truth for every row, -1 or NaN where it is unknown."),
    )


def _lengths(samples: SampleSet, one: Field | None, steps: int, numbers: Ints) -> Ints:
    if one is not None and one.ragged:
        return samples.rows(one.name, numbers)
    return np.full(len(numbers), steps, np.int64)

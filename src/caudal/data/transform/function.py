"""A user's function on samples, and the shapes that it gives; not where it runs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from caudal.core.errors import DataError, UsageError
from caudal.core.messages import _
from caudal.core.seeds import generator
from caudal.data.sample_files.base import Array, Field, Ints

Sample = Mapping[str, Array]
Function = Callable[..., Mapping[str, Any]]
"""`function(sample)` or `function(sample, random)`; `random` is a numpy Generator, the same for a sample and
an epoch whoever runs it and in whatever order."""


class Transform:
    """Calls the function. It can be sent to another process if the function can."""

    def __init__(self, function: Function, seed: int) -> None:
        self._function, self._seed = function, seed
        self._draws = len(_positional(function)) > 1

    def __call__(self, sample: Sample, number: int, epoch: int) -> dict[str, Array]:
        """The fields that the function gives for the sample with that number in the set.

        Raises:
            Exception: whatever the function raises, with a note that names the sample.
        """
        try:
            if self._draws:
                given = self._function(dict(sample), generator(self._seed, "transform", epoch, number))
            else:
                given = self._function(dict(sample))
            return {str(name): np.asarray(value) for name, value in given.items()}
        except Exception as error:  # raised again, with the sample's number
            error.add_note(_("This happened in the transform of sample {number}.").format(number=number))
            raise


def _positional(function: Function) -> list[str]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # built in, without a signature
        return ["sample"]
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [one.name for one in parameters if one.kind in kinds and one.default is inspect.Parameter.empty]


@dataclass(frozen=True)
class Output:
    """A field that comes out. Where it is ragged, it has as many rows as the field `follows` that came in."""

    field: Field
    follows: str = ""


def learn(transform: Transform, ragged: Sequence[str], samples: Sequence[tuple[int, Sample]]) -> list[Output]:
    """The fields that come out, from a few samples (number, arrays), of different lengths if there are any.

    A field whose first axis has as many rows as one of the fields `ragged` that came in is ragged itself.

    Raises:
        UsageError: no fields, no numbers, or shapes that differ from sample to sample.
    """
    given = [(sample, transform(sample, number, 0)) for number, sample in samples]
    first = given[0][1]
    if not first:
        raise UsageError(_("The transform gives no fields."), _("Return a dict of arrays."))
    learned = []
    for name, array in first.items():
        arrays = [out.get(name) for _sample, out in given]
        if array.dtype.kind not in "biufc" or any(a is None or a.dtype != array.dtype for a in arrays):
            raise UsageError(
                _("The transform gives “{field}” as {kinds}, and one kind of number is needed.").format(
                    field=name, kinds=", ".join(sorted({str(getattr(a, "dtype", None)) for a in arrays}))
                ),
                _("Return arrays of one dtype under the same names for every sample."),
            )
        shapes = [a.shape for a in arrays if a is not None]
        dtype, follows = array.dtype.newbyteorder("="), _follows(shapes, ragged, given)
        if follows and len({shape[1:] for shape in shapes}) == 1:
            learned.append(Output(Field(name, dtype, (None, *shapes[0][1:])), follows))
        elif len(set(shapes)) == 1:
            learned.append(Output(Field(name, dtype, shapes[0])))
        else:
            k = next(k for k, shape in enumerate(shapes) if shape != shapes[0])
            raise _wrong_shape(name, samples[k][0], shapes[k], shapes[0])
    return learned


def _follows(
    shapes: list[tuple[int, ...]], ragged: Sequence[str], given: list[tuple[Sample, dict[str, Array]]]
) -> str:
    """The ragged field that is as long as the first axis in every sample, or none."""
    if not all(shapes):
        return ""
    for name in ragged:
        if all(shape[0] == len(sample[name]) for shape, (sample, _out) in zip(shapes, given, strict=True)):
            return name
    return ""


def apply(
    transform: Transform,
    inputs: Mapping[str, Any],
    outputs: Mapping[str, Any],
    samples: Ints,
    epoch: int,
    first: int,
    last: int,
) -> None:
    """Transform the samples at the places `first` … `last` - 1 of a batch.

    `inputs` and `outputs` give each sample's array by its place, as an array (B, …) or a `Ragged` does.

    Raises:
        DataError: the function gives other fields, shapes or numbers than it did before.
    """
    for k in range(first, last):
        number = int(samples[k])
        given = transform({name: array[k] for name, array in inputs.items()}, number, epoch)
        if given.keys() != outputs.keys():
            raise DataError(
                _("The transform gives {given} for sample {number}, and {expected} for others.").format(
                    given=sorted(given), number=number, expected=sorted(outputs)
                ),
                _("Return the same fields for every sample."),
            )
        for name, value in given.items():
            whole = outputs[name]
            place = whole[k, ...] if isinstance(whole, np.ndarray) else whole[k]
            if value.shape != place.shape or value.dtype != place.dtype:
                raise _wrong_shape(name, number, (*value.shape, value.dtype), (*place.shape, place.dtype))
            place[...] = value


def _wrong_shape(name: str, number: int, shape: tuple[Any, ...], expected: tuple[Any, ...]) -> DataError:
    return DataError(
        _(
            "The transform gives “{field}” as {shape} for sample {number}, and as {expected} for others."
        ).format(field=name, shape=list(map(str, shape)), number=number, expected=list(map(str, expected))),
        _("Crop or pad to one shape, or keep the number of rows."),
    )

"""Tensors in files of `torch.save` (`.pt`, `.pth`), always with `weights_only`.

A file holds a tensor (the field “x”), a dict or a tuple of tensors, a list of samples that are dicts or
tuples, or graphs of PyTorch Geometric (“x”, “edges”, “edge_attr”, “y”). Contiguous tensors are never decoded:
their places in the file are given. All else is copied as one block a file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from io import BufferedReader
from pathlib import Path

import numpy as np

from caudal.core.messages import _
from caudal.data.byte_file import ByteFile, FileObject
from caudal.data.sample_files.arrangement import Coding, Stored, companions, finished, one_by_one, whole_file
from caudal.data.sample_files.array_stream import PIECE_BYTES, Stream
from caudal.data.sample_files.base import Array, Field, Part
from caudal.data.sample_files.likeness import Likeness
from caudal.data.sample_files.torch_archive import Laid, TorchArchive
from caudal.data.sample_files.torch_content import Arrays, Samples, Value, content
from caudal.data.sample_files.torch_likeness import torch_likeness
from caudal.data.unreadable import unreadable


class TorchReader:
    """Reads `.pt` and `.pth`. See `SampleReader`."""

    suffixes = (".pt", ".pth")

    def part(self, file: ByteFile, whole: bool) -> Part:
        """See `SampleReader.part`."""
        archive = TorchArchive(file)
        found = content(file, archive)
        path = Path(file.name)
        if isinstance(found, Arrays):
            part = _part_of_arrays(file, found, archive.object_bytes, whole and not found.is_list)
        else:
            part = _part_of_samples(path, found, archive.object_bytes)
        if whole and found.is_list and part.samples > 1:
            known = _('Files that are lists of samples stay so: samples="file" changes nothing.')
            part = replace(part, left_out=(*part.left_out, known))
        return part

    def likeness(self, file: ByteFile, whole: bool) -> Likeness | None:
        """See `LikenessReader`: all but the values of tensors, numbers and texts, and the archive's name."""
        found = content(file, TorchArchive(file))
        if isinstance(found, Arrays) and (found.is_list or not whole):
            return None  # its values say where samples end
        return torch_likeness(file)

    def read(self, file: ByteFile, part: Part, block: int, into: Mapping[str, Array]) -> None:
        """See `SampleReader.read`."""
        found = content(file, TorchArchive(file))
        stream = BufferedReader(FileObject(file), PIECE_BYTES)  # small tensors come in pieces, in their order
        try:
            for field in part.fields:
                values = found.values[field.name]
                if isinstance(values, list):
                    _copy_all(stream, values, field, into[field.name])
                else:
                    _copy(stream, values, into[field.name])
        except (EOFError, KeyError, ValueError):
            raise unreadable(
                Path(file.name), _("it is not what it was when it was indexed"), _("Index the data again.")
            ) from None


def _part_of_arrays(file: ByteFile, found: Arrays, object_bytes: int, whole: bool) -> Part:
    path = Path(file.name)
    arrays = [Stored(name, value.dtype, value.shape, _place(value)) for name, value in found.values.items()]
    coding = _coding([*found.values.values()], object_bytes)
    if whole:
        return whole_file(path, arrays, coding, found.left_out)

    def values_of(name: str) -> Array:
        value = found.values[name]
        values = np.empty(value.shape, value.dtype)
        _copy(BufferedReader(FileObject(file)), value, values)
        return values

    arrays, ends = companions(path, arrays, values_of)
    return one_by_one(path, arrays, {**ends, **found.ends}, coding, found.left_out)


def _part_of_samples(path: Path, found: Samples, object_bytes: int) -> Part:
    fields, rows, places = [], {}, {}
    for name, values in found.values.items():
        field = _common_field(path, name, values, name in found.ragged)
        fields.append(field)
        if field.ragged:
            rows[name] = np.array([value.shape[0] for value in values], np.int64)
        offsets = [_place(value) for value in values]
        if None not in offsets:
            places[name] = np.array(offsets, np.int64)
    coding = _coding([value for values in found.values.values() for value in values], object_bytes)
    return finished(tuple(fields), found.count, rows, places, coding, found.left_out)


def _common_field(path: Path, name: str, values: Sequence[Value], ragged: bool) -> Field:
    """The field of a list of values: alike in all but the first axis."""
    dtypes = {value.dtype for value in values}
    shapes = {value.shape for value in values}
    if len(dtypes) > 1:
        raise unreadable(
            path,
            _("“{name}” is {dtypes} in different samples").format(
                name=name, dtypes=", ".join(sorted(str(dtype) for dtype in dtypes))
            ),
            _("Save it with one dtype."),
        )
    ragged = ragged or len(shapes) > 1
    if ragged and (() in shapes or len({shape[1:] for shape in shapes}) > 1):
        some = ", ".join(str(shape) for shape in sorted(shapes)[:4])
        raise unreadable(
            path,
            _("“{name}” has the shapes {shapes}; samples may differ in the first axis alone").format(
                name=name, shapes=some
            ),
        )
    shape = values[0].shape
    return Field(name, values[0].dtype, (None, *shape[1:]) if ragged else shape)


def _coding(values: Sequence[Value], object_bytes: int) -> Coding:
    spans = [value.span_bytes for value in values if isinstance(value, Laid) and not value.as_in_memory]
    return Coding("torch", object_bytes + PIECE_BYTES + max(spans, default=0))


def _place(value: Value) -> int | None:
    return value.offset if isinstance(value, Laid) and value.as_in_memory else None


def _copy_all(stream: Stream, values: Sequence[Value], field: Field, into: Array) -> None:
    at = 0
    for value in values:
        rows = value.shape[0] if field.ragged else 1
        _copy(stream, value, into[at : at + rows])
        at += rows


def _copy(stream: Stream, value: Value, into: Array) -> None:
    into = into.reshape(value.shape)
    if isinstance(value, Laid):
        value.read(stream, into)
    else:
        into[...] = value

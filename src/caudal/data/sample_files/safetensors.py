"""Tensors in safetensors files (`.safetensors`): a field each, never decoded.

The format is eight bytes with the length of a JSON header, the header, and the values behind each other.
The library reads local files by name alone and tells no offsets; so the header is read here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from caudal.core.messages import _
from caudal.data.byte_file import ByteFile, read_bytes
from caudal.data.pack_layout import BLOCKS, CATEGORIES, CHECKS, FIELDS
from caudal.data.sample_files.arrangement import (
    Coding,
    Stored,
    claimed_bytes,
    companions,
    one_by_one,
    read_stored,
    whole_file,
)
from caudal.data.sample_files.base import Array, Part
from caudal.data.sample_files.number_types import named_dtype, no_such_numbers
from caudal.data.unreadable import unreadable

_LENGTH_BYTES = 8
_MOST_HEADER_BYTES = 100_000_000  # the format's own limit
_NAMES = {
    "BOOL": "bool", "I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64",
    "U8": "uint8", "U16": "uint16", "U32": "uint32", "U64": "uint64",
    "F16": "float16", "F32": "float32", "F64": "float64", "C64": "complex64",
    "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
    "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
}  # fmt: skip


class SafetensorsReader:
    """Reads `.safetensors`. See `SampleReader`."""

    suffixes = (".safetensors",)

    def part(self, file: ByteFile, whole: bool) -> Part:
        """See `SampleReader.part`."""
        path, (header, start) = Path(file.name), _header(file)
        categories = header.pop("__metadata__", None)
        values_bytes = file.size_bytes - start
        arrays = [_stored(path, name, entry, start, values_bytes) for name, entry in header.items()]
        raw = Coding("raw")
        named = {a.name: a for a in arrays}
        if whole and BLOCKS not in named:  # a pack says itself that it holds many
            return whole_file(path, arrays, raw)
        own = {name: read_stored(file, named.pop(name)) for name in (BLOCKS, CHECKS) if name in named}
        fields, ends = companions(path, list(named.values()), lambda name: read_stored(file, named[name]))
        part = one_by_one(path, fields, ends, raw)
        return _as_pack(path, part, own, categories) if own else part

    def alike_until(self, head: bytes, whole: bool) -> int:
        """See `AlikeReader`: the header. Where samples end inside of a file, its values say it."""
        start = _LENGTH_BYTES + int.from_bytes(head[:_LENGTH_BYTES], "little")
        return start if whole and start <= len(head) and BLOCKS.encode() not in head[:start] else 0

    def read(self, file: ByteFile, part: Part, block: int, into: Mapping[str, Array]) -> None:
        """Never called: every part has places."""
        raise AssertionError("the bytes of safetensors files are fetched as they are")


def _header(file: ByteFile) -> tuple[dict[str, Any], int]:
    path = Path(file.name)
    length = int.from_bytes(read_bytes(file, 0, _LENGTH_BYTES), "little")
    broken = unreadable(path, _("its header is not that of a safetensors file"))
    if not 0 < length <= min(_MOST_HEADER_BYTES, file.size_bytes - _LENGTH_BYTES):
        raise broken
    try:
        header = json.loads(read_bytes(file, _LENGTH_BYTES, length))
    except (ValueError, RecursionError) as error:
        raise broken from error
    if not isinstance(header, dict):
        raise broken
    return header, _LENGTH_BYTES + length


def _as_pack(path: Path, part: Part, own: Mapping[str, Array], metadata: Any) -> Part:
    """The part of a pack's shard: blocks, checks and texts as they were written."""
    ends, checks = own.get(BLOCKS), own.get(CHECKS)
    broken = unreadable(path, _("its blocks and checks do not belong together"))
    if ends is None or checks is None or checks.dtype != np.uint32 or ends.dtype != np.int64:
        raise broken
    rising = ends.ndim == 1 and len(ends) and ends[0] > 0 and (np.diff(ends) > 0).all()
    if not rising or int(ends[-1]) != part.samples or checks.shape != (len(ends), len(part.fields)):
        raise broken
    try:
        texts = json.loads((metadata or {}).get(CATEGORIES, "{}"))
        fields = tuple(replace(f, categories=tuple(texts.get(f.name, ()))) for f in part.fields)
        order = [f.name for f in fields]
        names = json.loads((metadata or {})[FIELDS])
        at = [order.index(name) for name in names]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise broken from error
    return replace(part, fields=tuple(fields[k] for k in at), ends=ends, checks=checks)


def _stored(path: Path, name: str, entry: Any, start: int, values_bytes: int) -> Stored:
    """The tensor of one entry of the header, after seeing that it lies inside the file."""
    try:
        kind, shape, (first, end) = str(entry["dtype"]), list(entry["shape"]), entry["data_offsets"]
        inside = 0 <= first <= end <= values_bytes
    except (TypeError, KeyError, ValueError) as error:
        raise unreadable(path, _("the header of “{array}” is broken").format(array=name)) from error
    if kind not in _NAMES:
        raise no_such_numbers(path, name, kind)
    dtype = named_dtype(path, name, _NAMES[kind])
    claimed = claimed_bytes(path, name, shape, dtype.itemsize, values_bytes)
    if not inside or end - first != claimed or not isinstance(first, int):
        raise unreadable(path, _("the places of “{array}” do not fit its shape").format(array=name))
    return Stored(name, dtype, tuple(shape), start + first)

"""Which number types can be a field, and what they are called in NumPy.

Knows names and dtypes alone; it reads nothing.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np

from caudal.core.errors import UnreadableFile
from caudal.core.messages import _
from caudal.data.unreadable import unreadable

# NumPy itself has no such numbers; the package ml_dtypes, where it is installed, brings them.
_SMALL_FLOATS = ("bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz")

_NUMPY_NAMES = (
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "float16", "float32", "float64", "complex64", "complex128",
)  # fmt: skip


def named_dtype(path: Path, array: str, name: str) -> np.dtype[Any]:
    """The dtype called `name` (NumPy's and PyTorch's word: "float32", "bfloat16").

    Raises:
        UnreadableFile: NumPy knows no such numbers; names the file's `array`.
    """
    if name in _NUMPY_NAMES:
        return np.dtype(name)
    if name in _SMALL_FLOATS:
        try:
            small: np.dtype[Any] = np.dtype(getattr(importlib.import_module("ml_dtypes"), name))
        except (ImportError, AttributeError):
            raise no_such_numbers(path, array, name) from None
        return small
    raise no_such_numbers(path, array, name)


def no_such_numbers(path: Path, array: str, name: str) -> UnreadableFile:
    """The error for an array of numbers that NumPy does not have."""
    return unreadable(
        path,
        _("“{array}” is {dtype}, which NumPy does not have").format(array=array, dtype=name),
        _("Convert it to float16 or float32 and save the file again."),
    )


def refuse_objects(path: Path, array: str, dtype: np.dtype[Any]) -> None:
    """Refuse what cannot be left out quietly either: Python objects and records.

    Raises:
        UnreadableFile: `dtype` holds objects, or values of several parts.
    """
    if dtype.hasobject:
        raise unreadable(
            path,
            _("“{array}” holds Python objects, which are never unpickled").format(array=array),
            _("Save arrays of numbers; for samples of different length, join them and add their ends."),
        )
    if dtype.names is not None or dtype.subdtype is not None:
        raise unreadable(
            path,
            _("“{array}” holds records, not numbers").format(array=array),
            _("Save each of its columns as an array of its own."),
        )


def why_no_number(dtype: np.dtype[Any]) -> str:
    """A clause on what the values of `dtype` are, or "" where they are numbers that PyTorch knows too."""
    if dtype.newbyteorder("=").name in _NUMPY_NAMES:
        return ""
    if dtype.kind in "SU":
        return _("it holds text")
    if dtype.kind in "mM":
        return _("it holds dates or durations")
    return _("its values are {dtype}, which PyTorch does not have").format(dtype=dtype.name)

"""NumPy arrays on their own, one a file (`.npy`): the field “x”.

Values in C order and in this machine's byte order are never decoded: their places in the file are given.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from caudal.core.messages import _
from caudal.data.byte_file import ByteFile, FileObject
from caudal.data.sample_files.arrangement import Coding, Stored, one_by_one, whole_file
from caudal.data.sample_files.array_stream import PIECE_BYTES, ArrayHeader, array_header, pour
from caudal.data.sample_files.base import Array, Ints, Part
from caudal.data.sample_files.number_types import why_no_number
from caudal.data.unreadable import unreadable

_FIELD = "x"
_HEADER_BYTES = 512  # fetched at once; most headers have 128


class NpyReader:
    """Reads `.npy`. See `SampleReader`."""

    suffixes = (".npy",)

    def part(self, file: ByteFile, whole: bool) -> Part:
        """See `SampleReader.part`."""
        path, header = Path(file.name), _header(file)
        if why := why_no_number(header.dtype):
            raise unreadable(path, why, _("Save it as an array of numbers."))
        left_out = []
        if beyond := file.size_bytes - header.start - header.nbytes:
            left_out.append(_("{bytes} bytes after the array are left out.").format(bytes=beyond))
        offset = header.start if header.as_in_memory else None
        arrays = [Stored(_FIELD, header.dtype, header.shape, offset)]
        coding = Coding("npy", header.scratch_bytes)
        if whole:
            return whole_file(path, arrays, coding, left_out)
        part = one_by_one(path, arrays, {}, coding, left_out)
        return part if part.places or header.fortran else replace(part, ends=_blocks(part.samples, arrays[0]))

    def alike_until(self, head: bytes, whole: bool) -> int:
        """See `AlikeReader`: all but the values."""
        version_1 = head[6:7] == b"\x01"
        start = 10 + int.from_bytes(head[8:10], "little") if version_1 else len(head) + 1
        return start if start <= len(head) else 0

    def read(self, file: ByteFile, part: Part, block: int, into: Mapping[str, Array]) -> None:
        """See `SampleReader.read`."""
        header, target = _header(file), into[_FIELD]
        first = int(part.ends[block - 1]) if block else 0
        row_bytes = header.nbytes // max(1, header.shape[0]) if header.shape else header.nbytes
        stream = FileObject(file)
        stream.seek(header.start + first * row_bytes)
        try:
            pour(stream, header, target)
        except EOFError:
            raise unreadable(Path(file.name), _("it ends in its values")) from None


def _header(file: ByteFile) -> ArrayHeader:
    stream = io.BufferedReader(FileObject(file), _HEADER_BYTES)
    return array_header(stream, Path(file.name), _FIELD, file.size_bytes)


def _blocks(samples: int, array: Stored) -> Ints:
    """Blocks of about a piece each, as every one is read on its own."""
    step = max(1, PIECE_BYTES // max(1, array.row_bytes))
    return np.minimum(np.arange(step, samples + step, step, dtype=np.int64), samples)

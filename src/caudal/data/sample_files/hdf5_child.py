"""A process that says where the arrays of HDF5 files lie: `python -m caudal.data.sample_files.hdf5_child`.

The HDF5 library has crashed on broken files again and again; here that ends nothing but this process. It has
no file open: it asks for bytes on standard output and gets them on standard input. It gives no values but
texts and the few numbers that lie inside a header. Messages are a length in eight bytes and JSON; answers
have whole numbers behind them. It ends when nobody asks.
"""

from __future__ import annotations

import io
import json
import resource
import struct
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import IO, Any

import numpy as np
import numpy.typing as npt

IDLE_SECONDS = 5.0
MOST_ARRAYS = 1024
MOST_TEXT_BYTES = 2**24
_READ_AHEAD_BYTES = 2**16
_MEMORY_BYTES = 384 * 2**20
_LENGTH = struct.Struct("<q")
Table = npt.NDArray[np.int64]


class _Asked(io.RawIOBase):
    """A file whose bytes are asked for, one stretch at a time."""

    def __init__(self, size_bytes: int, ask: Callable[[int, int], bytes]) -> None:
        self._size, self._ask, self._at = size_bytes, ask, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        count = max(0, min(len(view), self._size - self._at))
        if count:
            view[:count] = self._ask(self._at, count)
            self._at += count
        return count


def _send(stream: IO[bytes], message: dict[str, Any], tables: Sequence[Table] = ()) -> None:
    """Write a message, and the numbers behind it."""
    text = json.dumps(message).encode()
    stream.write(_LENGTH.pack(len(text)) + text)
    for array in tables:
        stream.write(np.ascontiguousarray(array, np.int64).tobytes())
    stream.flush()


def _serve() -> None:
    commands, answers = sys.stdin.buffer, sys.stdout.buffer
    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def ask(offset: int, count: int) -> bytes:
        _send(answers, {"read": [offset, count]})
        data = commands.read(count)
        if len(data) < count:
            raise SystemExit
        return data

    while _is_asked(commands):
        head = commands.read(_LENGTH.size)
        if len(head) < _LENGTH.size:
            return
        (size,) = _LENGTH.unpack(head)
        try:
            described, tables = _describe(_Asked(size, ask))
        except Exception as error:  # the library raises of every kind on broken files
            described, tables = {"error": str(error).splitlines()[0][:200] if str(error) else "?"}, []
        described["tables"] = [len(table) for table in tables]
        _send(answers, described, tables)


def _is_asked(commands: Any) -> bool:
    import select

    return bool(commands.peek() if select.select([commands], [], [], IDLE_SECONDS)[0] else b"")


def _describe(file: _Asked) -> tuple[dict[str, Any], list[Table]]:
    """Every array of a file that is reached without leaving it; chunk tables go beside the message."""
    h5py: Any = import_module("h5py")
    arrays: list[dict[str, Any]] = []
    tables: list[Table] = []
    with h5py.File(io.BufferedReader(file, _READ_AHEAD_BYTES), "r") as opened:

        def visit(name: str, found: Any) -> bool | None:
            if isinstance(found, h5py.Dataset):
                arrays.append(_array(h5py, name, found, tables))
            return True if len(arrays) > MOST_ARRAYS else None

        opened.visititems(visit)
    return {"arrays": arrays}, tables


def _array(h5py: Any, name: str, found: Any, tables: list[Table]) -> dict[str, Any]:
    said: dict[str, Any] = {"name": name, "shape": [int(n) for n in found.shape or ()]}
    if found.shape is None:
        return {**said, "why": "empty"}
    text = h5py.check_string_dtype(found.dtype)
    if text is not None:
        if found.ndim > 1 or found.size * max(1, text.length or 16) > MOST_TEXT_BYTES:
            return {**said, "why": "texts"}
        flat = np.atleast_1d(found.asstr("utf-8", "replace")[()])
        return {**said, "texts": [str(one) for one in flat.tolist()]}
    said["dtype"] = "bool" if h5py.check_enum_dtype(found.dtype) else found.dtype.str
    if found.dtype.kind not in "biufc" or found.dtype.names or found.dtype.subdtype:
        return {**said, "why": "numbers"}
    if found.is_virtual or found.external:
        return {**said, "why": "elsewhere"}
    layout = found.id.get_create_plist().get_layout()
    if layout == h5py.h5d.CHUNKED:
        return {**said, **_chunks(found, tables)}
    if layout == h5py.h5d.COMPACT:
        return {**said, "inline": np.ascontiguousarray(found[()]).tobytes().hex()}
    offset = found.id.get_offset()
    if offset is None and found.size:
        return {**said, "why": "unwritten"}
    return {**said, "offset": offset or 0}


def _chunks(found: Any, tables: list[Table]) -> dict[str, Any]:
    """The chunks of an array; a row has its first entry on each axis, place, size, and filters left out."""
    plist = found.id.get_create_plist()
    filters = [int(plist.get_filter(k)[0]) for k in range(plist.get_nfilters())]
    rows: list[tuple[int, ...]] = []

    def note(chunk: Any) -> None:
        rows.append((*chunk.chunk_offset, chunk.byte_offset, chunk.size, chunk.filter_mask))

    found.id.chunk_iter(note)
    tables.append(np.array(rows, np.int64).reshape(-1))
    return {"chunk": [int(n) for n in found.chunks], "filters": filters, "table": len(tables) - 1}


if __name__ == "__main__":
    _serve()

"""The tags of one TIFF directory, classic or BigTIFF, either byte order.

Reads a few kilobytes and the arrays that are asked for, never a pixel. Every count is checked against the
file's size before anything is allocated for it. It gives no meaning to tags: that is `tiff_layout.py`.

Format: "TIFF Revision 6.0" (Adobe, 1992) and the BigTIFF proposal (Adobe/Aware Systems, 2004).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from caudal.core.messages import _
from caudal.data.unreadable import unreadable
from caudal.data.url import Location

# Fills a buffer with what lies at an offset, wherever the file is; raises `UnreadableFile` where it cannot.
ReadInto = Callable[[int, memoryview], None]

# TIFF field types that matter here, as numpy type codes; rationals are not read.
_TYPES = {1: "u1", 2: "S1", 3: "u2", 4: "u4", 6: "i1", 7: "u1", 8: "i2", 9: "i4", 11: "f4", 12: "f8",
          13: "u4", 16: "u8", 17: "i8", 18: "u8"}  # fmt: skip

_MAX_TAGS = 4096
_MAX_TAG_BYTES = 2**30
_MAX_TEXT_BYTES = 2**24
_MAX_DIRECTORIES = 64
_NEW_SUBFILE_TYPE = 254
_REDUCED_OR_MASK = 1 | 4


@dataclass(frozen=True, slots=True)
class Directory:
    """One directory (IFD) of a file; `number` counts from 0. Tag values are read when asked for."""

    read: ReadInto
    path: Location
    size_bytes: int
    byteorder: str
    big: bool
    number: int
    next_offset: int
    entries: dict[int, tuple[int, int, bytes]]  # code → type, count, value field

    def has(self, code: int) -> bool:
        """Whether the tag is there."""
        return code in self.entries

    def array(self, code: int, most: int | None = None) -> npt.NDArray[Any]:
        """The values of a tag, in native byte order, the first `most` of them; empty when the tag is absent.

        Raises:
            UnreadableFile: the values lie beyond the end of the file, or their type is unknown.
        """
        if code not in self.entries:
            return np.empty(0, np.int64)
        kind, claimed, field = self.entries[code]
        count = claimed if most is None else min(claimed, most)
        if kind not in _TYPES:
            raise unreadable(self.path, _("its tag {code} has an unknown type").format(code=code))
        dtype = np.dtype(_TYPES[kind]).newbyteorder(self.byteorder)  # type: ignore[arg-type]
        wanted = count * dtype.itemsize
        if claimed * dtype.itemsize <= len(field):
            raw: bytes | bytearray = field[:wanted]
        else:
            place = int(np.frombuffer(field, f"{self.byteorder}u{len(field)}")[0])
            if place + wanted > self.size_bytes or wanted > _MAX_TAG_BYTES:
                raise unreadable(
                    self.path, _("it is truncated: tag {code} lies beyond its end").format(code=code)
                )
            raw = bytearray(wanted)
            self.read(place, memoryview(raw))
        return np.frombuffer(raw, dtype).astype(dtype.newbyteorder("="), copy=False)

    def integers(self, code: int, most: int) -> list[int]:
        """The first `most` values of a tag of whole numbers; empty when it is absent or of another type."""
        values = self.array(code, most)
        return values.tolist() if values.dtype.kind in "iu" else []

    def integer(self, code: int, default: int) -> int:
        """The first value of a tag of whole numbers, or `default` when there is none."""
        return next(iter(self.integers(code, 1)), default)

    def text(self, code: int) -> str:
        """The value of a tag of text up to its first zero byte; empty when absent."""
        return self.array(code, _MAX_TEXT_BYTES).tobytes().split(b"\0")[0].decode("utf-8", "replace")


def main_directory(read: ReadInto, path: Location, size_bytes: int) -> Directory:
    """The first directory that holds a full-resolution image, or the first of all.

    Raises:
        UnreadableFile: the file is no TIFF, or its directory lies beyond its end.
    """
    first: Directory | None = None
    for directory in _directories(read, path, size_bytes):
        if not directory.integer(_NEW_SUBFILE_TYPE, 0) & _REDUCED_OR_MASK:
            return directory
        first = first or directory
    assert first is not None
    return first


def _directories(read: ReadInto, path: Location, size_bytes: int) -> Iterator[Directory]:
    byteorder, big, offset = _signature(read, path, size_bytes)
    seen: set[int] = set()
    while offset and offset not in seen and len(seen) < _MAX_DIRECTORIES:
        seen.add(offset)
        directory = _read_directory(read, path, size_bytes, byteorder, big, len(seen) - 1, offset)
        yield directory
        offset = directory.next_offset
    if not seen:
        raise unreadable(path, _("it is a TIFF without an image"))


def _signature(read: ReadInto, path: Location, size_bytes: int) -> tuple[str, bool, int]:
    head = _bytes(read, 0, min(16, size_bytes))
    byteorder = {b"II": "<", b"MM": ">"}.get(head[:2])
    order = "little" if byteorder == "<" else "big"
    version = int.from_bytes(head[2:4], order)  # type: ignore[arg-type]
    if byteorder is None or version not in (42, 43):
        raise unreadable(path, _("it is not a TIFF file"), _("Check that its suffix tells what it is."))
    big = version == 43
    if len(head) < (16 if big else 8):
        raise unreadable(path, _("it is truncated"))
    return byteorder, big, int.from_bytes(head[8:16] if big else head[4:8], order)  # type: ignore[arg-type]


def _read_directory(
    read: ReadInto, path: Location, size_bytes: int, byteorder: str, big: bool, number: int, offset: int
) -> Directory:
    head_bytes, entry_bytes, word = (8, 20, 8) if big else (2, 12, 4)
    truncated = _("it is truncated: a directory lies beyond its end")
    if offset + head_bytes > size_bytes:
        raise unreadable(path, truncated)
    count = int(np.frombuffer(_bytes(read, offset, head_bytes), f"{byteorder}u{head_bytes}")[0])
    if not 0 < count <= _MAX_TAGS:
        raise unreadable(path, _("its directory claims {count} tags").format(count=count))
    start, body = offset + head_bytes, count * entry_bytes
    if start + body > size_bytes:
        raise unreadable(path, truncated)
    raw = _bytes(read, start, min(body + word, size_bytes - start))
    record = np.dtype(
        [
            ("code", f"{byteorder}u2"),
            ("type", f"{byteorder}u2"),
            ("count", f"{byteorder}u{word}"),
            ("field", f"V{word}"),
        ]
    )
    entries: dict[int, tuple[int, int, bytes]] = {}
    for code, kind, values, field in np.frombuffer(raw, record, count).tolist():
        entries.setdefault(code, (kind, values, field))
    tail = raw[body : body + word]
    following = int(np.frombuffer(tail, f"{byteorder}u{word}")[0]) if len(tail) == word else 0
    return Directory(read, path, size_bytes, byteorder, big, number, following, entries)


def _bytes(read: ReadInto, offset: int, count: int) -> bytes:
    buffer = bytearray(count)
    read(offset, memoryview(buffer))
    return bytes(buffer)

"""What the footer of a Parquet file counts: rows of its groups, missing values and bytes of its columns.

pyarrow has these figures too, but a footer in which they are broken ends the process there. So they are read
here, with as much of Thrift's compact protocol as a footer needs; schema and values are left to pyarrow.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caudal.core.messages import _
from caudal.data.byte_file import ByteFile, read_bytes
from caudal.data.unreadable import unreadable

_MAGIC = b"PAR1"
_TAIL_BYTES = 8  # the footer's length and the magic
_MOST_VARINT_BITS = 70

# Kinds of values in Thrift's compact protocol.
_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 11, 12
_WHOLE_NUMBERS = (4, 5, 6)
# Numbers of fields in parquet.thrift.
_FILE_ROWS, _FILE_GROUPS = 3, 4
_GROUP_COLUMNS, _GROUP_ROWS = 1, 3
_CHUNK_METADATA, _COLUMN_BYTES, _COLUMN_STORED_BYTES, _COLUMN_STATISTICS, _NULL_COUNT = 3, 6, 7, 12, 3


@dataclass(frozen=True, slots=True)
class Footer:
    """`rows` of each row group; of each leaf column, whether values are missing (`nulls`, as far as known).

    `stored_bytes` and `chunk_bytes` are the sizes of the largest column chunk in the file and decompressed.
    """

    rows: tuple[int, ...]
    nulls: tuple[bool, ...]
    stored_bytes: int
    chunk_bytes: int


def read_footer(file: ByteFile) -> Footer:
    """The counts of a Parquet file.

    Raises:
        UnreadableFile: no Parquet file, or its footer is broken.
    """
    path = Path(file.name)
    tail = read_bytes(file, max(0, file.size_bytes - _TAIL_BYTES), min(file.size_bytes, _TAIL_BYTES))
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] != _MAGIC or length > file.size_bytes - _TAIL_BYTES:
        raise unreadable(path, _("it does not end as a Parquet file does"))
    try:
        found = _Compact(read_bytes(file, file.size_bytes - _TAIL_BYTES - length, length)).struct()
        return _footer(found, file.size_bytes)
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError, struct.error) as error:
        raise unreadable(path, _("its footer is broken")) from error


def _footer(found: dict[int, Any], size_bytes: int) -> Footer:
    groups = found.get(_FILE_GROUPS, [])
    rows = tuple(int(group[_GROUP_ROWS]) for group in groups)
    if min(rows, default=0) < 0 or sum(rows) != found[_FILE_ROWS]:
        raise ValueError("its row groups do not count its rows")
    columns = [[chunk[_CHUNK_METADATA] for chunk in group[_GROUP_COLUMNS]] for group in groups]
    stored_bytes = max(
        (int(column[_COLUMN_STORED_BYTES]) for group in columns for column in group), default=0
    )
    if stored_bytes > size_bytes:
        raise ValueError("it claims more than the file")
    return Footer(
        rows,
        tuple(
            any(column.get(_COLUMN_STATISTICS, {}).get(_NULL_COUNT, 0) for column in of_groups)
            for of_groups in zip(*columns, strict=True)
        ),
        stored_bytes,
        max((int(column[_COLUMN_BYTES]) for group in columns for column in group), default=0),
    )


class _Compact:
    """Values written one after another; a struct becomes a dict by the numbers of its fields."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def _take(self, count: int) -> bytes:
        taken = self._data[self._at : self._at + count]
        if len(taken) != count:
            raise ValueError("it ends too early")
        self._at += count
        return taken

    def _varint(self) -> int:
        number = 0
        for shift in range(0, _MOST_VARINT_BITS, 7):
            byte = self._data[self._at]
            self._at += 1
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                return number
        raise ValueError("a number has too many bytes")

    def _signed(self) -> int:
        number = self._varint()
        return (number >> 1) ^ -(number & 1)

    def struct(self) -> dict[int, Any]:
        """Fields up to the one that says stop; a field's number is written as the step from the last."""
        fields: dict[int, Any] = {}
        number = 0
        while head := self._take(1)[0]:
            number = number + (head >> 4) if head >> 4 else self._signed()
            kind = head & 0xF
            fields[number] = kind == _TRUE if kind in (_TRUE, _FALSE) else self._value(kind)
        return fields

    def _value(self, kind: int) -> Any:
        if kind in _WHOLE_NUMBERS:
            return self._signed()
        if kind in (_TRUE, _FALSE, _BYTE):
            return self._take(1)[0]
        if kind == _BINARY:
            return self._take(self._varint())
        if kind == _STRUCT:
            return self.struct()
        if kind in (_LIST, _SET):
            head = self._take(1)[0]
            return self._values(head & 0xF, head >> 4 if head >> 4 < 15 else self._varint())
        if kind == _DOUBLE:
            return struct.unpack("<d", self._take(8))[0]
        if kind == _MAP:
            count = self._varint()
            kinds = self._take(1)[0] if count else 0
            return [(self._value(kinds >> 4), self._value(kinds & 0xF)) for _i in range(count)]
        raise ValueError("it has a value of no known kind")

    def _values(self, kind: int, count: int) -> list[Any]:
        return [self._value(kind) for _i in range(count)]

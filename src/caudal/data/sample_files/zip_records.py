"""The records of a zip archive: which there are, and where their bytes lie.

Checks what the directory claims before anything is read by it; it does not know what the records hold.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from caudal.core.messages import _
from caudal.data.byte_file import ByteFile, FileObject, read_bytes
from caudal.data.unreadable import unreadable

_LOCAL_HEADER_BYTES = 30  # before the name; PKWARE APPNOTE 4.3.7
_LOCAL_HEADER = b"PK\x03\x04"
_MOST_GROWTH = 1040  # deflate gives at most 1032 bytes for one
_ENCRYPTED = 1

_BROKEN = (
    zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OverflowError,
    IndexError, MemoryError,
)  # fmt: skip


@contextmanager
def open_zip(file: ByteFile) -> Iterator[zipfile.ZipFile]:
    """The archive; whatever breaks while it is read is an `UnreadableFile`.

    Raises:
        UnreadableFile: no zip archive, or a broken one.
    """
    path = Path(file.name)
    try:
        with zipfile.ZipFile(io.BufferedReader(FileObject(file))) as archive:
            yield archive
    except _BROKEN as error:
        why = str(error) or _("it ends in its values")
        raise unreadable(path, _("its zip archive is broken ({why})").format(why=why)) from error


def checked_records(file: ByteFile, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The records by name, in the order of the archive, their sizes compared with the file's.

    Raises:
        UnreadableFile: a name stands twice, a record is encrypted, or claims more bytes than it can have.
    """
    path, records = Path(file.name), {}
    for record in archive.infolist():
        name = record.filename
        if name in records:
            raise unreadable(path, _("it has two records called “{name}”").format(name=name))
        if record.flag_bits & _ENCRYPTED:
            raise unreadable(path, _("it is encrypted"), _("Save it without a password."))
        growth = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: _MOST_GROWTH}.get(record.compress_type)
        if growth is None:
            raise unreadable(
                path,
                _("“{name}” is compressed with neither deflate nor nothing").format(name=name),
                _("Save it with the library's own writer."),
            )
        held_bytes = file.size_bytes - record.header_offset
        if record.compress_size > held_bytes or record.file_size > record.compress_size * growth:
            raise unreadable(path, _("“{name}” claims more bytes than there are").format(name=name))
        records[name] = record
    return records


def record_start(file: ByteFile, record: zipfile.ZipInfo) -> int:
    """The offset in the file of the first byte of a record that is stored without compression.

    Raises:
        UnreadableFile: the record's own header is not where the directory says, or it ends behind the file.
    """
    path = Path(file.name)
    head = read_bytes(file, record.header_offset, _LOCAL_HEADER_BYTES)
    # The extra bytes may differ from those in the directory, so that only this header knows their number.
    name_bytes, extra_bytes = int.from_bytes(head[26:28], "little"), int.from_bytes(head[28:30], "little")
    start = record.header_offset + _LOCAL_HEADER_BYTES + name_bytes + extra_bytes
    if not head.startswith(_LOCAL_HEADER) or start + record.file_size > file.size_bytes:
        raise unreadable(path, _("“{name}” is not where the archive says").format(name=record.filename))
    return start

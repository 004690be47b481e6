"""Where every byte of a zip archive belongs: its directory, and of each record the header and the values.

For comparing archives byte by byte; what they hold is not known here.
"""

from __future__ import annotations

import struct
import zipfile
from dataclasses import dataclass, field

from caudal.data.byte_file import ByteFile, read_bytes
from caudal.data.sample_files.likeness import Span

# PKWARE APPNOTE 4.3.7 and 4.3.12
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_DESCRIPTOR = 8  # a flag: sizes and checksum stand behind the values, too
_MOST_DIRECTORY = 1 << 16


@dataclass
class Record:
    """A record's name, where its header and its entry in the directory begin, and the span of its values."""

    name: str
    local: int
    entry: int
    values: Span
    name_bytes: int
    described: bool


@dataclass
class Layout:
    """The records in the order of the directory, which begins at `directory`.

    `free` gathers spans that may differ between archives.
    """

    directory: int
    records: list[Record]
    free: list[Span] = field(default_factory=list)

    def free_checksum(self, one: Record) -> None:
        """Let the checksum of a record differ, wherever it stands."""
        self.free += [(one.entry + 16, one.entry + 20), (one.local + 14, one.local + 18)]
        if one.described:
            following = min((r.local for r in self.records if r.local > one.local), default=self.directory)
            self.free.append((one.values[1], following))

    def check(self, one: Record) -> tuple[int, int, int]:
        """That the directory's checksum is that of the record's values."""
        return (*one.values, one.entry + 16)


def zip_layout(file: ByteFile, archive: zipfile.ZipFile) -> Layout | None:
    """The layout of an archive that could be opened; `None` for unusual ones."""
    begin = archive.start_dir
    if not 0 <= file.size_bytes - begin <= _MOST_DIRECTORY:
        return None
    directory = read_bytes(file, begin, file.size_bytes - begin)
    made = Layout(begin, [])
    at = 0
    for info in archive.infolist():
        if len(directory) < at + _ENTRY.size or directory[at : at + 4] != b"PK\x01\x02":
            return None
        entry = _ENTRY.unpack_from(directory, at)
        flags, name_bytes, extra_bytes, comment_bytes = entry[3], entry[10], entry[11], entry[12]
        local = info.header_offset
        if local + _LOCAL.size > begin:
            return None
        head = _LOCAL.unpack(read_bytes(file, local, _LOCAL.size))
        if head[0] != b"PK\x03\x04" or head[9] != name_bytes:
            return None
        values = local + _LOCAL.size + head[9] + head[10]
        if values + info.compress_size > begin:
            return None
        span = values, values + info.compress_size
        described = bool(flags & _DESCRIPTOR)
        made.records.append(Record(info.filename, local, begin + at, span, name_bytes, described))
        made.free += [(begin + at + 12, begin + at + 16), (local + 10, local + 14)]  # when it was written
        at += _ENTRY.size + name_bytes + extra_bytes + comment_bytes
    return made


def entry_name(one: Record) -> int:
    """Where the name begins in the directory."""
    return one.entry + _ENTRY.size


def local_name(one: Record) -> int:
    """Where the name begins in the record's own header."""
    return one.local + _LOCAL.size

"""Looks at the headers of many files of samples, by threads: what each says, condensed to columns.

Files that begin alike are understood once. Which files, and what becomes of it, is for `sample_index.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import repeat

from caudal.core.errors import UnreadableFile
from caudal.data.index import Names
from caudal.data.locations import open_bytes
from caudal.data.sample_files.base import AlikeReader, Field, Part, SampleReader
from caudal.data.sample_listing import texts
from caudal.data.sample_parts import Parts, check_fields, condensed
from caudal.data.sample_peek import Peeked, peek

_MOST_KNOWN = 4096  # parts that are kept for files that begin alike


@dataclass
class Headers:
    """Looks at the headers of files; threads share it."""

    names: Names
    reader: SampleReader
    whole: bool
    tolerant: bool
    alike: AlikeReader | None
    known: dict[tuple[int, bytes], Part] = field(default_factory=dict)
    fields: dict[tuple[Field, ...], tuple[Field, ...]] = field(default_factory=dict)

    def at(self, first: int, end: int) -> tuple[Parts | None, list[UnreadableFile]]:
        """The parts of the files `first` … `end` - 1 that have samples; what is wrong with others.

        Raises:
            UnreadableFile: something is, and the index is not tolerant.
            DataError: their fields differ.
        """
        begin, numbers, sizes = "", [], []
        parts: list[Part] = []
        errors: list[UnreadableFile] = []
        names = texts(self.names, first, min(end, len(self.names)))
        for number, (name, seen) in enumerate(peek(names) if self.alike else zip(names, repeat(None)), first):
            try:
                size_bytes, part = self.one(name, seen)
            except UnreadableFile as error:
                if not self.tolerant:
                    raise
                errors.append(error)
                continue
            if not part.samples:
                continue
            if parts and part.fields is not parts[0].fields:
                check_fields(begin, parts[0].fields, name, part.fields)
            begin = begin or name
            numbers.append(number)
            sizes.append(size_bytes)
            parts.append(part)
        return condensed(begin, numbers, sizes, parts) if parts else None, errors

    def one(self, name: str, seen: Peeked) -> tuple[int, Part]:
        """The size in bytes of a file, and its part, which may be that of another that begins alike."""
        key = None
        if seen and self.alike:
            size_bytes, head = seen
            if until := self.alike.alike_until(head, self.whole):
                key = size_bytes, head[:until]
                if part := self.known.get(key):
                    return size_bytes, part
        size_bytes, part = part_of(name, self.reader, self.whole)
        part = replace(part, fields=self.fields.setdefault(part.fields, part.fields))
        if key and key[0] == size_bytes:
            if len(self.known) >= _MOST_KNOWN:
                self.known.clear()
            self.known[key] = part
        return size_bytes, part


def part_of(name: str, reader: SampleReader, whole: bool) -> tuple[int, Part]:
    """The size in bytes of a file, and what it says of itself.

    Raises:
        UnreadableFile: it does not open, or its header is broken.
    """
    file = open_bytes(name)
    try:
        return file.size_bytes, reader.part(file, whole)
    finally:
        file.close()

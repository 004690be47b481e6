"""Looks at the headers of many files of samples, by threads: what each says, condensed to columns.

Files that are alike in what decides are understood once. Which files, and what becomes of it, is for
`sample_index.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import repeat

from caudal.core.errors import UnreadableFile
from caudal.data.byte_file import read_bytes
from caudal.data.index import Names
from caudal.data.locations import open_bytes
from caudal.data.sample_files.base import AlikeReader, Field, Part, SampleReader
from caudal.data.sample_files.likeness import Likeness, LikenessReader
from caudal.data.sample_listing import texts
from caudal.data.sample_parts import Parts, check_fields, condensed
from caudal.data.sample_peek import Peeked, peek, the_head

_MOST_KNOWN = 4096  # parts that are kept for files that begin alike
_MOST_KINDS = 1024  # sizes and forms of files that are compared byte by byte
_MOST_OF_A_SIZE = 8
_MOST_UNLIKE = 64  # files of which nothing could be said, until it is no more asked for


@dataclass(frozen=True)
class _Seen:
    """A kind of file that was understood: what its bytes have to be, and its part."""

    likeness: Likeness
    key: bytes
    part: Part


@dataclass
class Headers:
    """Looks at the headers of files; threads share it."""

    names: Names
    reader: SampleReader
    whole: bool
    tolerant: bool
    alike: AlikeReader | LikenessReader | None
    known: dict[tuple[int, bytes], Part] = field(default_factory=dict)
    fields: dict[tuple[Field, ...], tuple[Field, ...]] = field(default_factory=dict)
    seen: dict[int, tuple[_Seen, ...]] = field(default_factory=dict)
    unlike: int = 0

    def __post_init__(self) -> None:
        # Asked once: what a protocol wants is looked up name by name, and would take half the time of a file.
        self._compares = self.alike if isinstance(self.alike, LikenessReader) else None
        self._begins = self.alike if isinstance(self.alike, AlikeReader) else None

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
        reads = self._reads if self._compares else the_head
        peeked = peek(names, reads) if self.alike else zip(names, repeat(None))
        for number, (name, seen) in enumerate(peeked, first):
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
        """The size in bytes of a file, and its part, which may be that of another that is alike."""
        if self._compares:
            return self._one_compared(name, seen, self._compares)
        key = None
        if seen and self._begins:
            size_bytes, head = seen
            if until := self._begins.alike_until(head, self.whole):
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

    def _reads(self, size_bytes: int) -> tuple[tuple[int, int], ...]:
        """What is to be read of a file of that size: what decided of another, if any was seen."""
        kinds = self.seen.get(size_bytes)
        return kinds[0].likeness.reads if kinds else ()

    def _one_compared(self, name: str, seen: Peeked, reader: LikenessReader) -> tuple[int, Part]:
        """As `one`, by the bytes that decide."""
        if seen and (kinds := self.seen.get(seen[0], ())):
            size_bytes, data = seen
            data = data or _bytes_of(name, kinds[0].likeness)  # it was looked at before the first of its kind
            for kind in kinds:
                if kind.likeness.is_like(data, kind.key):
                    return size_bytes, kind.part
        size_bytes, part = part_of(name, self.reader, self.whole)
        part = replace(part, fields=self.fields.setdefault(part.fields, part.fields))
        if seen and seen[0] == size_bytes and part.samples and not part.extra:
            self._learn(name, size_bytes, part, reader)
        return size_bytes, part

    def _learn(self, name: str, size_bytes: int, part: Part, reader: LikenessReader) -> None:
        """Remember what a file that was understood is like."""
        kinds = self.seen.get(size_bytes, ())
        if len(self.seen) >= _MOST_KINDS or len(kinds) >= _MOST_OF_A_SIZE or self.unlike >= _MOST_UNLIKE:
            return
        file = open_bytes(name)
        try:
            likeness = reader.likeness(file, self.whole) if file.size_bytes == size_bytes else None
            if likeness is None or (kinds and kinds[0].likeness.reads != likeness.reads):
                self.unlike += 1
                return
        finally:
            file.close()
        data = _bytes_of(name, likeness)
        key = likeness.key(data)
        if key is not None:
            self.seen[size_bytes] = (*kinds, _Seen(likeness, key, part))


def _bytes_of(name: str, likeness: Likeness) -> bytes:
    """What decides of a file, and what lies between."""
    file = open_bytes(name)
    try:
        return b"".join(read_bytes(file, first, count) for first, count in likeness.reads)
    finally:
        file.close()


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

"""Tables as text, comma-separated: where their blocks begin, what their columns are, and their values.

The file is read in pieces of about a mebibyte, from one line's end to another's; it is never held whole.
Texts in quotes may hold commas and line ends.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from caudal.core.messages import _
from caudal.data.byte_file import ByteFile, read_bytes
from caudal.data.sample_files.base import Array, Field, Ints, Part
from caudal.data.sample_files.table_columns import (
    Arrow,
    Filler,
    arrow,
    check_names,
    different_texts,
    is_text,
    left_out,
    left_out_texts,
    number_field,
    table_errors,
    text_field,
)
from caudal.data.unreadable import unreadable

_PIECE_BYTES = 1 << 20
_MOST_BLOCK_BYTES = 1 << 26  # a line longer than this is a quote that nobody closed
_BOM = b"\xef\xbb\xbf"
_BAD_ROW = re.compile(r"Row #(\d+): Expected (\d+) columns, got (\d+)")
_NEWLINE, _QUOTE = ord("\n"), ord('"')


@dataclass(frozen=True)
class TextPart(Part):
    """A part of a text, which knows its columns' `names` and the offset of each block and of the end."""

    names: tuple[str, ...] = ()
    starts: Ints = field(default_factory=lambda: np.zeros(0, np.int64))


def text_part(file: ByteFile, whole: bool) -> TextPart:
    """What a text says of itself, from one pass over it, and another if it has columns of text.

    Raises:
        UnreadableFile: broken, empty, not separated by commas, or without a column of numbers.
    """
    path = Path(file.name)
    with table_errors(path):
        names, begin = _names(file)
        starts, ends, rows = [begin], [], 0
        kinds: dict[str, Arrow] = dict.fromkeys(names, arrow(path).null())
        nulls, scratch_bytes = dict.fromkeys(names, False), 0
        for start, end in _blocks(file, begin):
            table = _parsed(file, names, start, end, row=rows)
            for name in names:
                kinds[name] = _wider(path, kinds[name], table.column(name).type)
                nulls[name] = nulls[name] or bool(table.column(name).null_count)
            if table.num_rows:
                rows += table.num_rows
                ends.append(rows)
                starts.append(end)
            scratch_bytes = max(scratch_bytes, 4 * (end - start) + 16 * table.num_rows * len(names))
        starts[-1] = file.size_bytes
        if not ends:
            raise unreadable(path, _("it has no rows"))
        fields, sentences = _fields(file, names, kinds, nulls, starts, whole)
    return TextPart(
        fields=tuple(fields),
        ends=np.array([1] if whole else ends, np.int64),
        rows={one.name: np.array([rows], np.int64) for one in fields} if whole else {},
        scratch_bytes=scratch_bytes,
        codec="csv",
        left_out=tuple(sentences),
        names=tuple(names),
        starts=np.array(starts, np.int64),
    )


def text_read(file: ByteFile, part: Part, block: int, into: Mapping[str, Array]) -> None:
    """Fill `into` with the columns of one block, or of all where the file is one sample.

    Raises:
        UnreadableFile: broken, or not what `part` says.
    """
    path = Path(file.name)
    assert isinstance(part, TextPart)
    fillers = [Filler(path, one, into[one.name]) for one in part.fields]
    texts = [one.name for one in part.fields if one.categories]
    chosen = range(len(part.starts) - 1) if part.samples == 1 else range(block, block + 1)
    with table_errors(path):
        for i in chosen:
            start, end = int(part.starts[i]), int(part.starts[i + 1])
            table = _parsed(file, part.names, start, end, [one.name for one in part.fields], texts)
            for one, filler in zip(part.fields, fillers, strict=True):
                for piece in table.column(one.name).chunks:
                    filler.add(piece)
        for filler in fillers:
            filler.finish()


def _names(file: ByteFile) -> tuple[list[str], int]:
    """The columns' names, and where the first row begins. A first line of numbers alone has no names."""
    path = Path(file.name)
    piece = read_bytes(file, 0, min(_PIECE_BYTES, file.size_bytes))
    begin = len(_BOM) if piece.startswith(_BOM) else 0
    begin += len(piece[begin:]) - len(piece[begin:].lstrip(b"\r\n"))
    ends = _line_ends(piece[begin:], 0)
    if not len(ends) and len(piece) < file.size_bytes:
        raise unreadable(path, _("its first line does not end"), _separate())
    end = begin + int(ends[0]) if len(ends) else len(piece)
    try:
        lines = list(csv.reader(io.StringIO(piece[begin:end].decode(), newline="")))
    except (UnicodeDecodeError, csv.Error):
        raise unreadable(path, _("its first line is not text in UTF-8"), _separate()) from None
    if not lines:
        raise unreadable(path, _("it has no rows"))
    if len(lines) != 1:
        raise unreadable(path, _("its lines do not end as lines do"), _separate())
    cells = [cell.strip() for cell in lines[0]]
    if len(cells) == 1 and (";" in cells[0] or "\t" in cells[0]):
        raise unreadable(path, _("its columns are not separated by commas"), _separate())
    numbered = [str(i) for i in range(len(cells))]
    if all(_is_number(cell) for cell in cells) and cells != numbered:
        return numbered, begin
    names = [cell or number for cell, number in zip(cells, numbered, strict=True)]
    check_names(path, names)
    return names, end


def _separate() -> str:
    return _("Save it as CSV in UTF-8, with commas between the columns and a point in decimal numbers.")


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _line_ends(piece: bytes, quotes_before: int) -> Ints:
    """The places behind the line ends in `piece` that stand in no quotes."""
    values = np.frombuffer(piece, np.uint8)
    ends, quotes = np.flatnonzero(values == _NEWLINE), np.flatnonzero(values == _QUOTE)
    if len(quotes) or quotes_before:
        # A quote in a quoted text is written twice, so that an odd number before means: inside of one.
        ends = ends[(np.searchsorted(quotes, ends) + quotes_before) % 2 == 0]
    return ends + 1


def _blocks(file: ByteFile, begin: int) -> Iterator[tuple[int, int]]:
    """Start and end of pieces of whole lines."""
    start, quotes = begin, 0
    for at in range(begin, file.size_bytes, _PIECE_BYTES):
        piece = read_bytes(file, at, min(_PIECE_BYTES, file.size_bytes - at))
        ends = _line_ends(piece, quotes)
        quotes += piece.count(b'"')
        if len(ends):
            yield start, at + int(ends[-1])
            start = at + int(ends[-1])
        elif at + len(piece) - start > _MOST_BLOCK_BYTES:
            raise unreadable(
                Path(file.name),
                _("a line from byte {start} on does not end").format(start=start),
                _("Close the quotes of its texts."),
            )
    if start < file.size_bytes:
        yield start, file.size_bytes


def _parsed(
    file: ByteFile,
    names: Sequence[str],
    start: int,
    end: int,
    only: Sequence[str] | None = None,
    texts: Sequence[str] = (),
    row: int | None = None,
) -> Any:
    """The columns `only` (or all) of one block; those in `texts` as text, the others as they look."""
    path = Path(file.name)
    pa, arrow_csv = arrow(path), arrow(path, "pyarrow.csv")
    try:
        return arrow_csv.read_csv(
            pa.BufferReader(read_bytes(file, start, end - start)),
            arrow_csv.ReadOptions(use_threads=False, column_names=names, block_size=end - start + 1),
            arrow_csv.ParseOptions(newlines_in_values=True),
            arrow_csv.ConvertOptions(
                include_columns=list(only or names), column_types=dict.fromkeys(texts, pa.string())
            ),
        )
    except pa.ArrowInvalid as error:
        found = _BAD_ROW.search(str(error))
        if not found or row is None:
            raise
        raise unreadable(
            path,
            _("row {row} has {actual} columns, and the first {expected}").format(
                row=row + int(found[1]), actual=found[3], expected=found[2]
            ),
        ) from error


def _wider(path: Path, one: Arrow, other: Arrow) -> Arrow:
    """The type that holds what two blocks of a column hold."""
    pa = arrow(path)
    if other in (one, pa.null()):
        return one
    if one == pa.null():
        return other
    if {one, other} == {pa.int64(), pa.float64()}:
        return pa.float64()
    return one if pa.types.is_temporal(one) and pa.types.is_temporal(other) else pa.string()


def _fields(
    file: ByteFile,
    names: Sequence[str],
    kinds: Mapping[str, Arrow],
    nulls: Mapping[str, bool],
    starts: Sequence[int],
    whole: bool,
) -> tuple[list[Field], list[str]]:
    """The fields, and the sentences on columns that are none."""
    path, fields, sentences = Path(file.name), [], []
    texts = [name for name in names if is_text(path, kinds[name])]
    different: dict[str, set[str] | None] = {name: set() for name in texts}
    for start, end in pairwise(starts) if texts else ():
        wanted = [name for name in texts if different[name] is not None]
        if not wanted:
            break
        table = _parsed(file, names, start, end, wanted, wanted)
        for name in wanted:
            known = arrow(path).array(sorted(different[name] or ()), arrow(path).string())
            different[name] = different_texts(path, [known, table.column(name)])
    for name in names:
        number = number_field(path, name, kinds[name], whole, nulls[name])
        if number:
            fields.append(number)
        elif name not in different:
            sentences.append(left_out(name, kinds[name]))
        elif (found := different[name]) is None:
            sentences.append(left_out_texts(name))
        else:
            fields.append(text_field(name, whole, found))
    if not fields:
        raise unreadable(path, _("it has no column of numbers"), _separate())
    return fields, sentences

"""A text file with equally many numbers in every line, read in pieces of at most 1 MiB."""

from __future__ import annotations

import importlib
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from caudal.core.errors import UnreadableFile
from caudal.core.messages import _
from caudal.data.byte_file import ByteFile, read_bytes
from caudal.data.sample_files.base import Array, Ints
from caudal.data.unreadable import unreadable

PIECE_BYTES = 1 << 20
# The text, twice while it is read; then a digit and a line end may be parsed, stacked, checked and converted.
SCRATCH_PER_PIECE_BYTE = 2 + 16
_MOST_FAST_COLUMNS = 256
_WHOLE_TEXT = b"0123456789+-, \t\r\n"
NUMBER_TEXT = _WHOLE_TEXT + b".eEnNaAiIfFtTyY"
_FLOAT64, _INT64 = np.dtype(np.float64), np.dtype(np.int64)


class NumberTable:
    """Numbers between commas, equally many in every line: int64 if `whole`, else float64."""

    def __init__(self, file: ByteFile, whole: bool) -> None:
        self.file = file
        self.whole = whole

    def rows(self, start: int = 0, stop: int | None = None) -> Iterator[Array]:
        """The lines between two offsets, a piece at a time: (lines, columns).

        Raises:
            UnreadableFile: a line is of another kind; it is named.
        """
        columns = 0
        dtype, allowed = (_INT64, _WHOLE_TEXT) if self.whole else (_FLOAT64, NUMBER_TEXT)
        for offset, text in self._pieces(start, self.file.size_bytes if stop is None else stop):
            columns = columns or text.count(b",", 0, text.index(b"\n")) + 1
            table = None
            if text.strip() and not text.translate(None, allowed):
                table = parse_fast(text, columns, dtype)
                table = parse(text, columns, dtype) if table is None else table
            # Both parsers pass over blank lines.
            if table is None or len(table) != text.count(b"\n"):
                raise self._bad_line(offset, text, columns)
            yield table

    def ends_of(self, lines: Ints) -> Ints:
        """The offset behind the first `lines[k]` lines, for each k; `lines` never decreases."""
        ends = np.zeros(len(lines), np.int64)
        seen = 0
        for offset, text in self._pieces(0, self.file.size_bytes):
            breaks = np.flatnonzero(np.frombuffer(text, np.uint8) == ord("\n"))
            here = slice(*np.searchsorted(lines, (seen + 1, seen + len(breaks) + 1)))
            ends[here] = offset + breaks[lines[here] - seen - 1] + 1
            seen += len(breaks)
        # The last line may have got an end that is not in the file.
        return np.minimum(ends, self.file.size_bytes)

    def refused(self, why: str, hint: str) -> UnreadableFile:
        """The error for this file."""
        return unreadable(Path(self.file.name), why, hint)

    def _pieces(self, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
        """Offset and text of whole lines, less the blank space before `stop`."""
        while start < stop:
            text = read_bytes(self.file, start, min(PIECE_BYTES, stop - start))
            if start + len(text) < stop:
                text = text[: text.rfind(b"\n") + 1]
                if not text:
                    why = _("a line is longer than {size} MiB").format(size=PIECE_BYTES >> 20)
                    raise self.refused(why, _("Write one row of numbers a line."))
                yield start, text
                start += len(text)
            else:
                if text := text.rstrip():
                    yield start, text + b"\n"
                return

    def _bad_line(self, offset: int, text: bytes, columns: int) -> UnreadableFile:
        line = 1 + sum(before.count(b"\n") for _at, before in self._pieces(0, offset))
        bad = (row for row in enumerate(io.BytesIO(text), line) if not self._is_row(row[1], columns))
        line, row = next(bad, (line, text))
        why = (
            _("line {line} is “{text}”, not {count} whole numbers")
            if self.whole
            else _("line {line} is “{text}”, not {count} numbers")
        )
        shown = row.strip()[:40].decode("ascii", "backslashreplace")
        return self.refused(
            why.format(line=line, text=shown, count=columns),
            _("Write equally many numbers in every line, with commas between them."),
        )

    def _is_row(self, row: bytes, columns: int) -> bool:
        if row.translate(None, _WHOLE_TEXT if self.whole else NUMBER_TEXT):
            return False
        try:
            numbers = [int(cell) if self.whole else float(cell) for cell in row.split(b",")]
        except ValueError:
            return False
        return len(numbers) == columns and (not self.whole or max(map(abs, numbers)) < 2**63)


def parse(text: bytes, columns: int, dtype: np.dtype[np.generic]) -> Array | None:
    """Lines of numbers as (lines, columns), blank lines left out; None if a line is of another kind."""
    try:
        table = np.loadtxt(io.BytesIO(text), dtype, comments=None, delimiter=",", ndmin=2)
    except ValueError:
        return None
    return table if table.shape[1] == columns else None


def parse_fast(text: bytes, columns: int, dtype: np.dtype[np.generic]) -> Array | None:
    """As `parse`, some times faster and while other threads run; None where `parse` has to decide."""
    if columns > _MOST_FAST_COLUMNS:
        return None
    try:
        arrow, csv = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.csv")
    except ImportError:
        return None
    names = [str(k) for k in range(columns)]
    try:
        table = csv.read_csv(
            arrow.BufferReader(text),
            csv.ReadOptions(use_threads=False, block_size=len(text) + 1, column_names=names),
            csv.ParseOptions(quote_char=False),
            csv.ConvertOptions(
                column_types=dict.fromkeys(names, arrow.from_numpy_dtype(dtype)), null_values=[]
            ),
        )
    except arrow.ArrowInvalid:
        return None
    return np.column_stack([column.to_numpy() for column in table.columns])

"""A CSV that says more of samples: the label of each file, or of each row of one file, and columns about it.

It is read row by row into columns: a table of a million files costs little more than its labels.
"""

from __future__ import annotations

import csv
from array import array
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from caudal.core.confined import open_plain
from caudal.core.errors import BadValues, UnreadableFile
from caudal.core.messages import _
from caudal.data.sample_files.base import Ints
from caudal.data.sample_set import SampleSet
from caudal.data.table_files import FilesByName
from caudal.data.text_column import TextColumn, TextColumnMaker

FILE_COLUMNS = ("file", "filename", "path", "image", "name", "id")
ROW_COLUMNS = ("row", "sample", "index")
LABEL_COLUMNS = ("label", "y", "class", "target", "labels")

_AT_ONCE = 4096  # rows that are looked up together


@dataclass(frozen=True)
class SampleTable:
    """`columns[name]` are the texts of the table, in the order of the samples `members` of a set."""

    members: Ints
    columns: dict[str, TextColumn]
    notes: tuple[str, ...]


def read_table(path: Path, samples: SampleSet) -> SampleTable:
    """What a CSV says of the samples of a set.

    Files are found by their names, with or without suffix, and with as many folders as the table gives. The
    samples of one file are counted, from 0, by a column “row”, or the table has a row for each, in order.

    Raises:
        UnreadableFile: it is no CSV, or does not say which samples it means.
        BadValues: it names what is not there, or twice with different words, or what may be several files.
    """
    with _rows(path) as (names, rows):
        key = _place(path, names, samples)
        others = {name: at for at, name in enumerate(names) if name and at not in (key.file, key.row)}
        makers = {name: TextColumnMaker() for name in others}
        said = array("q")  # the sample that each row is about
        missing: list[str] = []
        for chunk in _chunks(rows):
            numbers, unknown = key.samples_of(chunk)
            missing += unknown
            said.extend(numbers)
            for name, at in others.items():
                add = makers[name].add
                for row in chunk:
                    add(row[at].strip() if at < len(row) else "")
    if missing:
        raise BadValues(
            _("{path} names {count} files that are not there, the first is {name}.").format(
                path=path, count=len(missing), name=missing[0]
            ),
            _("Bring the files, or take their rows out."),
        )
    key.check(len(said))
    if not said:
        raise UnreadableFile(
            _("{path} has no row.").format(path=path), _("Give one for each sample."), path=str(path)
        )
    columns = {name: maker.made() for name, maker in makers.items()}
    return _in_order(path, samples, np.array(said, np.int64), columns, key.notes)


def _in_order(
    path: Path, samples: SampleSet, said: Ints, columns: Mapping[str, TextColumn], notes: tuple[str, ...]
) -> SampleTable:
    order = np.argsort(said, kind="stable")
    again = np.flatnonzero(np.diff(said[order]) == 0)
    for k in again.tolist():
        a, b = int(order[k]), int(order[k + 1])
        differ = [name for name, texts in columns.items() if texts[a] != texts[b]]
        if differ:
            file, within = samples.where(int(said[a]))
            name = differ[0]
            raise BadValues(
                _("{path} says of {file} (sample {number}) both {name} “{a}” and “{b}”.").format(
                    path=path,
                    file=samples.columns.names[file],
                    number=within,
                    name=name,
                    a=columns[name][a],
                    b=columns[name][b],
                ),
                _("Keep one row for each sample."),
            )
    order = np.delete(order, again + 1)
    members = said[order].astype(np.int64)
    left = len(samples) - len(members)
    if left:
        what = _("{count} files are not in {table} and are left out.")
        if len(samples.columns.names) < len(samples):
            what = _("{count} samples are not in {table} and are left out.")
        notes = (*notes, what.format(count=left, table=path.name))
    return SampleTable(members, {name: texts.taken(order) for name, texts in columns.items()}, notes)


class _Place:
    """Which samples rows are about: by file, by number, by both, or in order. -1: no such column."""

    def __init__(self, path: Path, samples: SampleSet, file: int, row: int) -> None:
        self.file, self.row = file, row
        self._path, self._set, self._seen = path, samples, 0
        self._files = FilesByName(samples.columns.names) if file >= 0 else None
        ends = samples.columns.file_ends
        self._begins, self._counts = ends - np.diff(ends, prepend=0), np.diff(ends, prepend=0)

    def samples_of(self, rows: list[list[str]]) -> tuple[list[int], list[str]]:
        """The sample of each row that is found; names of files that are not there."""
        if self.file < 0 and self.row < 0:
            begin, self._seen = self._seen, self._seen + len(rows)
            return list(range(begin, self._seen)), []
        files = [0] * len(rows)
        missing = []
        if self._files:
            names = [row[self.file] if self.file < len(row) else "" for row in rows]
            files = self._files.find(names, self._path)
            missing = [name for name, file in zip(names, files, strict=True) if file < 0]
        found = []
        for row, file in zip(rows, files, strict=True):
            if file >= 0:
                within = self._within(row, file) if self.row >= 0 else 0
                found.append(int(self._begins[file]) + within)
        return found, missing

    def _within(self, row: list[str], file: int) -> int:
        text = row[self.row].strip() if self.row < len(row) else ""
        count = int(self._counts[file])
        if not text.isdecimal() or int(text) >= count:
            raise BadValues(
                _("{path} names row “{row}”, and {file} has the rows 0 to {last}.").format(
                    path=self._path, row=text, file=self._set.columns.names[file], last=count - 1
                ),
                _("Rows are counted from 0."),
            )
        return int(text)

    def check(self, rows: int) -> None:
        """Raise where rows are to be samples in order, and are not as many."""
        if self.file < 0 and self.row < 0 and rows != len(self._set):
            raise BadValues(
                _("{path} has {rows} rows, and {data} has {samples} samples.").format(
                    path=self._path, rows=rows, data=self._set.root, samples=len(self._set)
                ),
                _("Give one row for each sample, in order, or a column “row” that counts from 0."),
            )

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be said of how rows were taken."""
        if self.file >= 0 or self.row >= 0:
            return ()
        return (_("The rows of {table} are taken for the samples, in order.").format(table=self._path.name),)


def _place(path: Path, names: list[str], samples: SampleSet) -> _Place:
    """How a table says which sample a row is about."""
    lower = [name.strip().lower() for name in names]
    row = next((lower.index(name) for name in ROW_COLUMNS if name in lower), -1)
    ends = samples.columns.file_ends
    alone = len(ends) == len(samples)
    one_file = len(ends) == 1 and not alone
    # In one file of many samples a “name” or “id” says something of a row, not of a file.
    known = FILE_COLUMNS[:3] if one_file else FILE_COLUMNS
    file = next((at for at, name in enumerate(lower) if name in known), -1)
    if alone and file >= 0:
        return _Place(path, samples, file, -1)
    if (one_file and file < 0) or (not alone and file >= 0 and row >= 0):
        return _Place(path, samples, file, row)
    if alone:
        raise UnreadableFile(
            _("{path} has no column of file names.").format(path=path),
            _("Name it “file”; the label's column is called “label”."),
            path=str(path),
        )
    raise UnreadableFile(
        _("{path} does not say which samples of a file its rows are about.").format(path=path),
        _("Add the columns “file” and “row”; rows are counted from 0."),
        path=str(path),
    )


@contextmanager
def _rows(path: Path) -> Iterator[tuple[list[str], Iterator[list[str]]]]:
    """The names of the columns, and the rows."""
    try:
        with open(open_plain(path), newline="", encoding="utf-8-sig") as file:
            rows = csv.reader(file)
            names = next((row for row in rows if row), [])
            yield names, (row for row in rows if row)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UnreadableFile(
            _("{path} cannot be read as a CSV: {why}.").format(path=path, why=error),
            _("Write it in UTF-8 with a row of names first."),
            path=str(path),
        ) from None


def _chunks(rows: Iterator[list[str]]) -> Iterator[list[list[str]]]:
    chunk: list[list[str]] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == _AT_ONCE:
            yield chunk
            chunk = []
    if chunk:
        yield chunk

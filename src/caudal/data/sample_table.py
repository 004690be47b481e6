"""A CSV beside pictures or other files of one sample each: the label of each file, and columns about it."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from caudal.core.confined import open_plain
from caudal.core.errors import BadValues, UnreadableFile
from caudal.core.messages import _
from caudal.data.sample_files.base import Ints
from caudal.data.sample_set import SampleSet

FILE_COLUMNS = ("file", "filename", "path", "image", "name", "id")
LABEL_COLUMNS = ("label", "y", "class", "target", "labels")


@dataclass(frozen=True)
class SampleTable:
    """`columns[name]` are the texts of the table, in the order of the samples of a set."""

    members: Ints
    columns: dict[str, list[str]]
    notes: tuple[str, ...]


def find_table(root: Path) -> Path | None:
    """The one CSV in a folder, or beside it; `None` if there is none, or several."""
    found = sorted(root.glob("*.csv")) if root.is_dir() else []
    return found[0] if len(found) == 1 else None


def read_table(path: Path, samples: SampleSet) -> SampleTable:
    """What a CSV says of the files of a set, found by their names, with or without suffix.

    Raises:
        UnreadableFile: it is no CSV with a column of file names.
        BadValues: it names files that are not there.
    """
    try:
        with open(open_plain(path), newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UnreadableFile(
            _("{path} cannot be read as a CSV: {why}.").format(path=path, why=error),
            _("Write it in UTF-8 with a row of names first."),
            path=str(path),
        ) from None
    names = list(rows[0]) if rows else []
    key = next((name for name in names if name and name.lower() in FILE_COLUMNS), None)
    if key is None:
        raise UnreadableFile(
            _("{path} has no column of file names.").format(path=path),
            _("Name it “file”; the label's column is called “label”."),
            path=str(path),
        )
    number = _numbers(samples)
    of_sample: dict[int, dict[str, str]] = {}
    missing = []
    for row in rows:
        name = (row[key] or "").replace("\\", "/")
        sample = number.get(name, number.get(name.rpartition("/")[2]))
        if sample is None:
            missing.append(name)
        else:
            of_sample[sample] = row
    if missing:
        raise BadValues(
            _("{path} names {count} files that are not there, the first is {name}.").format(
                path=path, count=len(missing), name=missing[0]
            ),
            _("Bring the files, or take their rows out."),
        )
    members = np.array(sorted(of_sample), np.int64)
    columns = {
        name: [(of_sample[sample].get(name) or "").strip() for sample in members.tolist()]
        for name in names
        if name and name != key
    }
    left = len(samples) - len(members)
    notes = (
        (_("{count} files are not in {table} and are left out.").format(count=left, table=path.name),)
        if left
        else ()
    )
    return SampleTable(members, columns, notes)


def _numbers(samples: SampleSet) -> dict[str, int]:
    """The sample of each file by the name under the root, by its own name, and by that without suffix."""
    number: dict[str, int] = {}
    files = samples.columns.names
    ends = samples.columns.file_ends
    for k in range(len(files)):
        if int(ends[k]) - (int(ends[k - 1]) if k else 0) != 1:
            continue
        path = Path(files[k])
        for name in (path.stem, path.name, f"{path.parent.name}/{path.name}", str(path)):
            number[name] = int(ends[k]) - 1
    return number

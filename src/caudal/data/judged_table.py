"""A CSV that says which images are good and which are not: `file,label`, and `mask` where there is one.

What the labels mean is not known here. No image is opened.
"""

from __future__ import annotations

import csv
import io
import os
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from caudal.core.errors import DataError
from caudal.core.messages import _
from caudal.data.byte_file import read_bytes
from caudal.data.locations import open_bytes
from caudal.data.pairs import must_be_there
from caudal.data.unreadable import unreadable

_COLUMNS = ("file", "label")


@dataclass(frozen=True, slots=True)
class Row:
    """An image, its label ("" where nobody said), and its mask if the table names one."""

    path: Path
    label: str
    mask: Path | None


def read_table(path: Path) -> list[Row]:
    """The rows of a CSV with the columns `file` and `label`, and perhaps `mask`; others are not looked at.

    Files are relative to the table's folder and lie below it.

    Raises:
        UnreadableFile: it cannot be read, or is no UTF-8.
        DataError: a column is missing, there is no row, or a file is named twice or lies elsewhere.
        BadPair: a file is not there.
    """
    with closing(open_bytes(path)) as file:
        content = read_bytes(file, 0, file.size_bytes)
    try:
        rows = list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""), restval=""))
    except (UnicodeDecodeError, csv.Error) as error:
        raise unreadable(path, str(error), _("Save it as CSV in UTF-8.")) from None
    if not rows or not set(_COLUMNS) <= set(rows[0]):
        raise DataError(
            _("{path} has no columns “file” and “label”, or no row.").format(path=path),
            _("Its first line must name them; a column “mask” may follow."),
            path=str(path),
        )
    found, seen = list[Row](), set[Path]()
    for row in rows:
        image = _named(path, row["file"])
        if image in seen:
            raise DataError(
                _("{path} names {file} twice.").format(path=path, file=row["file"]),
                _("Leave one row for each image."),
                path=str(path),
            )
        seen.add(image)
        mask = (row.get("mask") or "").strip()
        found.append(Row(image, row["label"].strip(), _named(path, mask) if mask else None))
    return found


def _named(table: Path, text: str) -> Path:
    """The file that a table names.

    Raises:
        DataError: it would lie outside of the table's folder.
        BadPair: it is not there.
    """
    file = table.parent / text.strip()
    below = Path(os.path.normpath(text.strip()))
    if below.is_absolute() or below.parts[0] == os.pardir:
        raise DataError(
            _("{path} names {file}, which does not lie below its folder.").format(path=table, file=text),
            _("Move the table above its files, and write paths relative to its own folder."),
            path=str(table),
        )
    return must_be_there(table, file)

"""A table beside files says what each is, and nothing that it names may be missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from caudal.core.errors import BadValues, UnreadableFile
from caudal.data.sample_table import read_table
from caudal.runs.samples import open_set


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b", "a", "c"):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / f"{name}.png")
    return tmp_path


def table(folder: Path, text: str) -> Path:
    path = folder / "labels.csv"
    path.write_text(text)
    return path


@pytest.mark.parametrize("names", [("c.png", "a.png"), ("c", "a")])
def test_rows_find_their_files_with_or_without_suffix(folder: Path, names: tuple[str, str]) -> None:
    path = table(folder, f"file,label,age\n{names[0]},bad,5\n{names[1]},good,\n")
    found = read_table(path, open_set(str(folder), resize=(8, 8)))
    assert found.members.tolist() == [0, 2]
    assert found.columns == {"label": ["good", "bad"], "age": ["", "5"]}
    assert "1 files are not in labels.csv" in found.notes[0]


def test_a_file_that_is_not_there_is_named(folder: Path) -> None:
    path = table(folder, "file,label\na,good\nz,bad\n")
    with pytest.raises(BadValues, match="names 1 files that are not there, the first is z"):
        read_table(path, open_set(str(folder), resize=(8, 8)))


@pytest.mark.parametrize("text", ["", "x,y\n1,2\n"])
def test_a_table_without_a_column_of_files_is_refused(folder: Path, text: str) -> None:
    with pytest.raises(UnreadableFile, match="no column of file names"):
        read_table(table(folder, text), open_set(str(folder), resize=(8, 8)))

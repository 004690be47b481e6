"""A table beside files says what each is, and nothing that it names may be missing."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from caudal.core.errors import BadValues, DataError, UnreadableFile
from caudal.data import text_column
from caudal.data.sample_table import read_table
from caudal.runs.samples import open_set
from caudal.runs.spec import RunSpec
from caudal.runs.work.sets import Sets


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
    assert {name: list(texts) for name, texts in found.columns.items()} == {
        "label": ["good", "bad"],
        "age": ["", "5"],
    }
    assert "1 files are not in labels.csv" in found.notes[0]


def test_a_file_that_is_not_there_is_named(folder: Path) -> None:
    path = table(folder, "file,label\na,good\nz,bad\n")
    with pytest.raises(BadValues, match="names 1 files that are not there, the first is z"):
        read_table(path, open_set(str(folder), resize=(8, 8)))


@pytest.mark.parametrize("text", ["", "x,y\n1,2\n"])
def test_a_table_without_a_column_of_files_is_refused(folder: Path, text: str) -> None:
    with pytest.raises(UnreadableFile, match="no column of file names"):
        read_table(table(folder, text), open_set(str(folder), resize=(8, 8)))


def test_rows_that_say_different_things_of_one_file_are_refused_and_equal_ones_are_one(folder: Path) -> None:
    found = open_set(str(folder), resize=(8, 8))
    twice = read_table(table(folder, "file,label\na,good\nb,bad\na.png,good\n"), found)
    assert twice.members.tolist() == [0, 1]
    assert list(twice.columns["label"]) == ["good", "bad"]
    with pytest.raises(BadValues, match=r"a\.png .*“good” and “bad”"):
        read_table(table(folder, "file,label\na,good\nb,bad\na.png,bad\n"), found)


@pytest.fixture
def nested(tmp_path: Path) -> Path:
    for name in ("a/7", "b/7", "b/8"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        np.save(tmp_path / f"{name}.npy", np.zeros((2, 3)))
    return tmp_path


def test_a_name_in_another_folder_is_no_other_file_and_one_of_two_is_not_chosen(nested: Path) -> None:
    found = open_set(str(nested), "file")
    for name in ("b/7.npy", "b/7", "./b/7.npy", f"{nested.name}/b/7.npy", f"{nested}/b/7", "b\\7.npy"):
        assert read_table(table(nested, f"file,label\n{name},x\n"), found).members.tolist() == [1]
    assert read_table(table(nested, "file,label\n8,x\n"), found).members.tolist() == [2]
    for name in ("c/7.npy", "/b/7.npy", "elsewhere/b/7.npy"):
        with pytest.raises(BadValues, match="names 1 files that are not there"):
            read_table(table(nested, f"file,label\n{name},x\n"), found)
    with pytest.raises(BadValues, match=r"2 files are called so: .*a/7\.npy.*b/7\.npy"):
        read_table(table(nested, "file,label\n7.npy,x\n"), found)


def test_rows_of_one_file_are_found_by_their_number_or_in_order(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((4, 5, 3)))
    found = open_set(str(tmp_path), "rows")
    kept = tmp_path / "kept"
    kept.mkdir()
    by_number = read_table(table(kept, "row,label\n3,d\n0,a\n1,b\n"), found)
    assert by_number.members.tolist() == [0, 1, 3]
    assert list(by_number.columns["label"]) == ["a", "b", "d"]
    named = read_table(table(kept, "file,sample,label\nx.npy,2,c\n"), found)
    assert named.members.tolist() == [2]
    in_order = read_table(table(kept, "label,id\na,9\nb,8\nc,7\nd,6\n"), found)
    assert list(in_order.columns["id"]) == ["9", "8", "7", "6"]
    assert "in order" in in_order.notes[0]
    with pytest.raises(BadValues, match=r"has 2 rows, and .* has 4 samples"):
        read_table(table(kept, "label\na\nb\n"), found)
    with pytest.raises(BadValues, match="names row “4”"):
        read_table(table(kept, "row,label\n4,d\n"), found)


def test_a_table_among_the_files_is_none_of_them(nested: Path) -> None:
    path = table(nested, "file,label\na/7,x\nb/7,y\nb/8,x\n")
    assert len(open_set(str(nested), "file", labels=str(path))) == 3
    found = open_set(str(nested), "file")
    assert len(found) == 3
    assert any("labels.csv is no sample" in note for note in found.notes)
    (nested / "more.csv").write_text("x\n1\n")
    with pytest.raises(DataError, match="several formats"):
        open_set(str(nested), "file")
    (nested / "more.csv").unlink()
    for k in range(20):
        np.save(nested / "a" / f"n{k}.npy", np.zeros((2, 3)))
    path.write_text("file,label\n" + "\n".join(f"n{k},{k % 2}" for k in range(20)))
    made = {"images": [str(nested)], "labels": str(path), "samples": "file"}
    work = Sets.open(RunSpec.make({"task": "sequence", "data": made, "training": {"batch": 4}}))
    assert work.sought.names == ("0", "1")
    assert len(work.opened.members) == 20


def test_a_table_of_very_many_files_is_held_in_few_bytes(tmp_path: Path) -> None:
    count = 20_000
    (tmp_path / "set").mkdir()
    np.save(tmp_path / "one.npy", np.zeros((2, 3)))
    for k in range(count):
        os.link(tmp_path / "one.npy", tmp_path / "set" / f"{k:07d}.npy")
    lines = "".join(f"{k:07d}.npy,{k % 3},{k % 100}\n" for k in range(count))
    path = table(tmp_path, "file,label,who\n" + lines)
    found = open_set(str(tmp_path / "set"), "file")
    tracemalloc.start()
    try:
        read = read_table(path, found)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert list(read.columns["who"][:3]) == ["0", "1", "2"]
    assert held / count < 24
    assert peak / count < 150


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(max_size=5), max_size=40), st.integers(0, 30))
def test_a_column_gives_back_its_texts_whichever_way_it_holds_them(texts: list[str], most: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_column, "_MOST_KINDS", most)
        maker = text_column.TextColumnMaker()
        for text in texts:
            maker.add(text)
        made = maker.made()
    assert list(made) == texts
    assert [made[k] for k in range(len(made))] == texts
    codes, kinds = made.coded()
    assert [kinds[code] for code in codes] == texts
    order = np.arange(len(texts))[::-1]
    assert list(made.taken(order)) == texts[::-1]

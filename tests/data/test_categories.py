"""Texts mean the same in every file of a set, however each file numbers its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import caudal
from caudal.runs.samples import open_set

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

FILES = [["cat", "dog", "cat"], ["dog", "emu", "ant", "emu"], ["cat"]]


def write(folder: Path, kind: str) -> list[str]:
    """Files of rows with a number and a text; the texts in the order of the rows."""
    every, first = [], 0
    for k, texts in enumerate(FILES):
        numbers = np.arange(first, first + len(texts))
        if kind == "parquet":
            table = pa.table({"x": numbers.astype(np.float32), "label": texts})
            parquet.write_table(table, folder / f"{k}.parquet")
        else:
            lines = [f"{number}.5,{text}" for number, text in zip(numbers, texts, strict=True)]
            (folder / f"{k}.csv").write_text("\n".join(["x,label", *lines]) + "\n")
        every += texts
        first += len(texts)
    return every


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_a_number_stands_for_one_text_in_all_files(tmp_path: Path, kind: str) -> None:
    data = tmp_path / "data"
    data.mkdir()
    every = write(data, kind)
    found = open_set(str(data), "rows")
    (label,) = [one for one in found.fields if one.name == "label"]
    assert label.categories == ("ant", "cat", "dog", "emu")
    for _again in range(2):  # the second time from a kept index, if it was kept
        with caudal.stream(data, 3, samples="rows", ram="32MiB", seed=2) as stream:
            got = {
                int(x): label.categories[int(code)]
                for batch in stream
                for x, code in zip(batch.numpy("x"), batch.numpy("label"), strict=True)
            }
        assert got == dict(enumerate(every))


def test_a_pack_of_them_has_the_same_numbers(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    every = write(data, "parquet")
    caudal.pack(data, out=tmp_path / "pack", samples="rows")
    with caudal.stream(tmp_path / "pack", 4, ram="32MiB", shuffle=False) as stream:
        codes = [int(code) for batch in stream for code in batch.numpy("label")]
    assert [("ant", "cat", "dog", "emu")[code] for code in codes] == every


def test_a_kept_index_keeps_them(tmp_path: Path) -> None:
    from caudal.data import index_cache

    data = tmp_path / "data"
    data.mkdir()
    write(data, "parquet")
    found = open_set(str(data), "rows")
    index_cache.store(tmp_path / "kept", found, data)
    again = index_cache.load(tmp_path / "kept", data, None)
    assert again is not None
    assert again.fields == found.fields
    np.testing.assert_array_equal(again.columns.recode["label"], found.columns.recode["label"])

"""Texts beside arrays are read with them: one a sample is a field, of parts that a file names too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from caudal.core.errors import BadValues, DataError
from caudal.data.sample_index import index_samples
from caudal.runs.spec import RunSpec
from caudal.runs.work.sets import Sets

DRAW = np.random.default_rng(0)


def opened(path: Path) -> Sets:
    small = {"batch": 8, "steps": 2}
    return Sets.open(RunSpec.make({"task": "sequence", "data": {"images": [str(path)]}, "training": small}))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("as_bytes", [False, True])
def test_a_split_of_texts_is_held_to(tmp_path: Path, save: Any, as_bytes: bool) -> None:
    parts = np.repeat(["train", "val", "test"], [40, 10, 10])
    text = parts.astype("S") if as_bytes else parts
    label = np.where(np.arange(60) % 2, "señal", "ruido")
    save(tmp_path / "a.npz", x=DRAW.normal(size=(60, 4, 2)), label=label, split=text)
    work = opened(tmp_path / "a.npz")
    assert work.sought.names == ("ruido", "señal")
    found = [work.split.train, work.split.validation, work.split.test]
    assert [part.tolist() for part in found] == [list(range(40)), list(range(40, 50)), list(range(50, 60))]


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.float32])
def test_a_split_of_numbers_is_held_to_and_said_or_refused(tmp_path: Path, dtype: Any) -> None:
    part = np.repeat([0, 1, 2], [40, 10, 10]).astype(dtype)
    y = np.arange(60) % 2
    np.savez(tmp_path / "a.npz", x=DRAW.normal(size=(60, 4, 2)), y=y, split=part)
    work = opened(tmp_path / "a.npz")
    assert work.split.test.tolist() == list(range(50, 60))
    assert any("0 train, 1 val, 2 test" in text for text in work.warnings)
    np.savez(tmp_path / "b.npz", x=DRAW.normal(size=(60, 4, 2)), y=y, split=part + 3)
    with pytest.raises(BadValues, match="3, 4, 5"):
        opened(tmp_path / "b.npz")


def test_texts_of_given_parts_follow_each_other_as_they_do(tmp_path: Path) -> None:
    x, y = DRAW.normal(size=(12, 3)), np.array(list("abcabcabcabc"))
    np.savez(tmp_path / "a.npz", X_train=x[:8], y_train=y[:8], X_test=x[8:], y_test=y[8:])
    found = index_samples(str(tmp_path))
    codes = found.columns.extra["y"]
    assert "".join(found.fields[-1].categories[code] for code in codes) == "abcabcabcabc"
    assert [one.name for one in found.fields] == ["X", "split", "y"]


def test_files_of_one_sample_bring_their_text_and_one_without_it_is_named(tmp_path: Path) -> None:
    for k, kind in enumerate(("walk", "run", "walk")):
        np.savez(tmp_path / f"{k}.npz", x=np.zeros((k + 1, 2)), y=np.array(kind))
    found = index_samples(str(tmp_path), "file")
    assert found.fields[-1].categories == ("run", "walk")
    assert found.columns.extra["y"].tolist() == [1, 0, 1]
    np.savez(tmp_path / "3.npz", x=np.zeros((2, 2)))
    with pytest.raises(DataError, match=r"3\.npz has no “y”"):
        index_samples(str(tmp_path), "file")


def test_texts_that_are_not_one_a_sample_are_left_out_and_said(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((5, 3)), names=np.array(["u", "v"]))
    found = index_samples(str(tmp_path), "rows")
    assert any("“names” is left out: it is not one text a sample" in note for note in found.notes)

"""An index that is kept is taken while it is true, starts at once, and gives the same set."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

import caudal
from caudal.data import index_cache
from caudal.data.index import Names
from caudal.data.sample_files import sample_readers
from caudal.data.sample_files.base import Field
from caudal.data.sample_index import index_samples
from caudal.data.sample_set import Columns, SampleSet
from caudal.runs import samples as opening


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(opening, "_WORTH_KEEPING_SECONDS", -1.0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for k in range(6):
        path = tmp_path / "set" / f"part {k % 2}" / f"{k}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, x=np.full((k + 1, 3), k, np.float32), y=np.int64(k))
    return tmp_path / "set"


def sequence(path: Path) -> list[bytes]:
    return [b.numpy("x").values.tobytes() for b in caudal.stream(path, 2, ram="8MiB")]


def test_a_kept_index_gives_the_same_samples(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = sequence(folder)
    assert len(list(index_cache.cache_folder().iterdir())) == 1

    def refuse(*_args: object) -> SampleSet:
        raise AssertionError("the set was indexed again")

    monkeypatch.setattr(opening, "index_samples", refuse)
    assert sequence(folder) == fresh


@pytest.mark.parametrize("change", ["add", "remove", "new folder"])
def test_a_changed_folder_is_indexed_anew(folder: Path, change: str) -> None:
    before = len(caudal.stream(folder, 1, ram="8MiB"))
    one = folder / "part 0" / "0.npz"
    if change == "remove":
        one.unlink()
    else:
        target = folder / ("part 1" if change == "add" else "part 2")
        target.mkdir(exist_ok=True)
        (target / "new.npz").write_bytes(one.read_bytes())
    assert len(caudal.stream(folder, 1, ram="8MiB")) == before + (-1 if change == "remove" else 1)


def test_a_broken_cache_is_no_harm(folder: Path) -> None:
    fresh = sequence(folder)
    for path in index_cache.cache_folder().rglob("*"):
        if path.is_file():
            path.write_bytes(b"{")
    assert sequence(folder) == fresh


def test_an_index_of_a_million_and_a_half_samples_starts_at_once_and_is_not_held(tmp_path: Path) -> None:
    from caudal.memory.meters import charged_bytes

    count = 1_500_000
    path = tmp_path / "x.npy"
    np.lib.format.open_memmap(path, "w+", np.float32, (count, 4))
    made = index_samples(str(path), "rows")
    index_cache.store(tmp_path / "kept", made, path)
    before = charged_bytes()
    began = time.perf_counter()
    found = index_cache.load(tmp_path / "kept", path, None)
    assert found is not None
    seconds = time.perf_counter() - began
    assert len(found) == count
    assert seconds < 0.1
    assert charged_bytes() - before < 4 * 2**20


def test_columns_of_every_kind_come_back(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "a.npy").write_bytes(b"x")
    columns = Columns(
        names=Names.pack([str(folder / "a.npy")]),
        sizes=np.array([1]),
        file_ends=np.array([2]),
        file_blocks=np.array([1]),
        block_ends=np.array([2]),
        row_ends={"x": np.array([3, 4])},
        places={"x": np.array([0, 8])},
        extra={"label": np.array([0, 1])},
        checks=np.array([[7]], np.uint32),
    )
    fields = (
        Field("x", np.dtype(np.float32), (None, 2)),
        Field("label", np.dtype(np.int64), (), ("a", "é")),
    )
    made = SampleSet(str(folder), fields, columns, sample_readers()[".npy"], False, 5, ("note",))
    index_cache.store(tmp_path / "kept", made, folder)
    found = index_cache.load(tmp_path / "kept", folder, None)
    assert found is not None
    assert (found.fields, found.notes, found.scratch_bytes, found.whole) == (fields, ("note",), 5, False)
    for name in ("row_ends", "places", "extra"):
        one, other = getattr(found.columns, name), getattr(columns, name)
        assert one.keys() == other.keys()
        assert all((one[key] == other[key]).all() for key in one)
    assert (found.columns.checks == columns.checks).all()  # type: ignore[operator]
    assert [found.columns.names[0]] == [str(folder / "a.npy")]

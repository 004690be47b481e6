"""Very many small files in one folder: their index is quick, holds columns alone, and says what is so."""

from __future__ import annotations

import os
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from caudal.core.errors import DataError, UnreadableFile
from caudal.data import sample_headers
from caudal.data.locations import list_files
from caudal.data.sample_index import index_samples, labels_from_folders
from caudal.data.sample_listing import list_names, texts
from caudal.data.sample_set import SampleSet
from caudal.runs.spec import RunSpec
from caudal.runs.work.sets import Sets

MILLION_SECONDS, MILLION_BYTES = 20, 300 * 2**20
FILES = 20_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sequences of 20 lengths under 20 000 names."""
    root = tmp_path_factory.mktemp("many")
    (root / "set").mkdir()
    for k in range(20):
        np.save(root / f"{k}.npy", np.full((k + 2, 3), k, np.float32))
    for k in range(FILES):
        os.link(root / f"{k % 20}.npy", root / "set" / f"{k:07d}.npy")
    return root / "set"


def test_an_index_takes_little_time_and_memory_for_each_file(folder: Path) -> None:
    began = time.process_time()  # others may use the processor, and its caches: so a few times as much
    found = index_samples(str(folder), "file")
    assert time.process_time() - began < 3 * MILLION_SECONDS * FILES / 1e6
    assert found.rows("x", np.arange(FILES)).tolist() == [k % 20 + 2 for k in range(FILES)]
    tracemalloc.start()
    try:
        index_samples(str(folder), "file")
        assert tracemalloc.get_traced_memory()[1] < MILLION_BYTES * FILES / 1e6
    finally:
        tracemalloc.stop()


def same(a: SampleSet, b: SampleSet) -> bool:
    columns = [a.columns, b.columns]
    assert a.fields == b.fields
    assert all((one.names.blob == columns[1].names.blob).all() for one in columns)
    assert a.columns.places is not None
    assert b.columns.places is not None
    for name in a.columns.places:
        assert a.columns.places[name].tolist() == b.columns.places[name].tolist()
    for name in a.columns.row_ends:
        assert a.columns.row_ends[name].tolist() == b.columns.row_ends[name].tolist()
    return a.columns.sizes.tolist() == b.columns.sizes.tolist() and a.notes == b.notes


@pytest.mark.parametrize("arrangement", ["file", "rows"])
@pytest.mark.parametrize("suffix", [".npy", ".safetensors"])
def test_files_that_begin_alike_say_what_each_would_alone(
    suffix: str, arrangement: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = np.random.default_rng(1)
    for k in range(40):
        x = draw.normal(size=(int(draw.integers(1, 5)), 3)).astype(np.float32)
        path = tmp_path / f"{k}{suffix}"
        # Alike in their beginnings, not in where their first sample ends.
        ends = np.array([int(draw.integers(0, len(x))), len(x)])
        np.save(path, x) if suffix == ".npy" else save_file({"x": x, "x.ends": ends}, path)
    quick = index_samples(str(tmp_path), arrangement)  # type: ignore[arg-type]
    monkeypatch.setattr(sample_headers, "peek", lambda names, *_reads: ((name, None) for name in names))
    assert same(quick, index_samples(str(tmp_path), arrangement))  # type: ignore[arg-type]


def test_files_of_one_size_with_other_shapes_are_told_apart(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((2, 3), np.float32))
    np.save(tmp_path / "b.npy", np.zeros((3, 2), np.float32))
    assert len({path.stat().st_size for path in tmp_path.iterdir()}) == 1
    with pytest.raises(DataError, match=r"a\.npy holds .*b\.npy holds"):
        index_samples(str(tmp_path), "file")


@pytest.mark.parametrize("cut", [0, 9, 100, 140])
def test_a_truncated_file_among_sound_ones_is_named(cut: int, tmp_path: Path) -> None:
    for k in range(3):
        np.save(tmp_path / f"{k}.npy", np.zeros((4, 3), np.float32))
    path = tmp_path / "1.npy"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(UnreadableFile, match=r"1\.npy"):
        index_samples(str(tmp_path), "file")
    found = index_samples(str(tmp_path), "file", tolerant=True)
    assert [Path(name).name for name in texts(found.columns.names)] == ["0.npy", "2.npy"]
    assert [Path(name).name for name, _why in found.unreadable] == ["1.npy"]


def test_names_are_those_of_a_listing_in_its_order(tmp_path: Path) -> None:
    for name in (
        "a/1.npy",
        "a.b/1.npy",
        "a/b/é.NPY",
        "z.npy",
        ".hidden/1.npy",
        ".1.npy",
        "no.txt",
        "a b.npy",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "linked").symlink_to(tmp_path / "a")
    (tmp_path / "one.npy").symlink_to(tmp_path / "z.npy")
    (tmp_path / "gone.npy").symlink_to(tmp_path / "nothing")
    names = list_names(str(tmp_path), (".npy",))
    assert list(texts(names)) == [name for name, _size in list_files(str(tmp_path), (".npy",))]
    assert list(texts(names)) == [names[k] for k in range(len(names))]
    assert list(texts(names, 1, 3)) == [names[1], names[2]]
    assert list(texts(list_names(str(tmp_path / "z.npy"), (".npy",)))) == [str(tmp_path / "z.npy")]
    with pytest.raises(UnreadableFile, match="no such file"):
        list_names(str(tmp_path / "none"), (".npy",))


def test_folders_of_one_name_are_one_class(tmp_path: Path) -> None:
    for k, name in enumerate(("one/cat", "one/dog", "two/cat")):
        (tmp_path / name).mkdir(parents=True)
        np.save(tmp_path / name / f"{k}.npy", np.zeros((k + 1, 3), np.float32))
    found = labels_from_folders(index_samples(str(tmp_path), "file"))
    assert found is not None
    assert found.fields[-1].categories == ("cat", "dog")
    assert found.columns.extra["label"].tolist() == [0, 1, 0]


def test_folders_that_are_parts_of_a_split_are_no_classes(tmp_path: Path) -> None:
    for k, name in enumerate(("train/cat", "train/dog", "test/cat", "dog/val")):
        (tmp_path / name).mkdir(parents=True)
        np.save(tmp_path / name / f"{k}.npy", np.zeros((k + 1, 3), np.float32))
    found = labels_from_folders(index_samples(str(tmp_path), "file"))
    assert found is not None
    names = [found.fields[-1].categories[code] for code in found.columns.extra["label"]]
    assert names == ["dog", "cat", "cat", "dog"]  # dog/val, test/cat, train/cat, train/dog
    for name in ("cat", "dog"):
        for part in ("train", "test"):
            for file in (tmp_path / part / name).glob("*.npy") if (tmp_path / part / name).is_dir() else ():
                file.rename(tmp_path / part / file.name)
    (tmp_path / "dog" / "val" / "3.npy").unlink()
    assert labels_from_folders(index_samples(str(tmp_path), "file")) is None


def test_files_that_say_nothing_learn_from_their_folders_and_others_do_not(tmp_path: Path) -> None:
    for part, count in (("train", 8), ("val", 2), ("test", 2)):
        for kind in ("walk", "run"):
            (tmp_path / part / kind).mkdir(parents=True)
            for k in range(count):
                np.save(tmp_path / part / kind / f"{k}.npy", np.zeros((k + 2, 3), np.float32))
    made = {"task": "sequence", "data": {"images": [str(tmp_path)]}, "training": {"batch": 4}}
    work = Sets.open(RunSpec.make(made))
    assert work.sought.names == ("run", "walk")
    assert [len(part) for part in (work.split.train, work.split.validation, work.split.test)] == [16, 4, 4]
    say = tmp_path / "say"
    for kind in ("a", "b"):
        (say / kind).mkdir(parents=True)
        for k in range(8):
            np.savez(say / kind / f"{k}.npz", x=np.zeros((k + 2, 3)), y=np.array(k % 2))
    own = Sets.open(RunSpec.make({**made, "data": {"images": [str(say)]}}))
    assert own.sought.field == "y"

"""HDF5 files say where their arrays lie; what is in chunks comes back; no file can hurt who reads it."""

from __future__ import annotations

import io
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import caudal
from caudal.core.errors import UnreadableFile
from caudal.data.sample_files import hdf5_process
from caudal.data.sample_files.hdf5 import Hdf5Reader
from caudal.data.sample_files.hdf5_chunks import _fletcher32
from tests.data.sample_files.all_alike import MemoryFile, check_fuzz, everything, in_threads, refusal, same

h5py = pytest.importorskip("h5py")
READER = Hdf5Reader()
DRAW = np.random.default_rng(0)
X = DRAW.normal(size=(103, 7, 3)).astype(np.float32)
Y = np.arange(103) % 5


def saved(fill: Any, **how: Any) -> MemoryFile:
    stream = io.BytesIO()
    with h5py.File(stream, "w", **how) as file:
        fill(file)
    return MemoryFile(stream.getvalue(), "x.h5")


def test_arrays_that_lie_as_in_memory_are_not_decoded() -> None:
    file = saved(lambda f: (f.create_dataset("x", data=X), f.create_dataset("inner/y", data=Y)))
    part = READER.part(file, whole=False)
    assert part.places is not None
    assert part.samples == len(X)
    found = everything(READER, file)
    assert same(found["x"], X)
    assert same(found["y"], Y)


@pytest.mark.parametrize(
    "options",
    [
        {"chunks": (10, 7, 3)},
        {"chunks": (10, 4, 2), "compression": "gzip"},
        {"chunks": (1, 7, 3), "compression": "gzip", "shuffle": True},
        {"chunks": (64, 3, 3), "compression": "lzf", "shuffle": True, "fletcher32": True},
        {"chunks": True, "compression": "gzip", "fletcher32": True},
        {"chunks": (103, 7, 3), "maxshape": (None, 7, 3)},
        {"chunks": (10, 7, 3), "maxshape": (None, None, None), "scaleoffset": None},
    ],
    ids=str,
)
@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_chunks_come_back_through_every_filter(options: dict[str, Any], libver: str) -> None:
    file = saved(
        lambda f: (f.create_dataset("x", data=X, **options), f.create_dataset("y", data=Y)), libver=libver
    )
    for whole in (False, True):
        found = everything(READER, file, whole)
        assert same(found["x"], X)
        assert same(found["y"], Y)
    chunks = options["chunks"]
    if chunks is not True:
        assert len(READER.part(file, whole=False).ends) == -(-len(X) // chunks[0])


def test_ragged_samples_lie_joined_beside_their_ends() -> None:
    ends = np.sort(DRAW.integers(0, 104, 20))
    ends[-1] = 103
    for options in ({}, {"chunks": (8, 7, 3), "compression": "gzip"}):
        file = saved(
            lambda f, o=options: (
                f.create_dataset("x", data=X, **o),
                f.create_dataset("x.ends", data=ends),
                f.create_dataset("y", data=np.arange(20)),
            )
        )
        part = READER.part(file, whole=False)
        np.testing.assert_array_equal(np.cumsum(part.rows["x"]), ends)
        assert same(everything(READER, file)["x"], X)


def test_other_byte_orders_truths_and_small_arrays_in_headers_are_read() -> None:
    def fill(f: Any) -> None:
        f.create_dataset("x", data=X.astype(">f4"))
        f.create_dataset("z", data=X.astype(">f4"), chunks=(5, 7, 3))
        f.create_dataset("b", data=Y > 2)
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_layout(h5py.h5d.COMPACT)
        space, small = h5py.h5s.create_simple((103,)), Y.astype(np.int8)
        made = h5py.h5d.create(f.id, b"c", h5py.h5t.NATIVE_INT8, space, plist)
        made.write(h5py.h5s.ALL, h5py.h5s.ALL, small)

    found = everything(READER, saved(fill, userblock_size=512))
    assert same(found["x"], X)
    assert same(found["z"], X)
    assert same(found["b"], Y > 2)
    assert same(found["c"], Y.astype(np.int8))


def test_texts_are_known_from_the_index_and_parts_that_are_named_are_held_to(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as f:
        f["x"], f["label"] = X, [("dog", "cat", "ñandú")[k % 3] for k in range(103)]
    batch = next(iter(caudal.stream(tmp_path, 103, shuffle=False, ram="32MiB")))
    assert batch["label"].tolist() == [(1, 0, 2)[k % 3] for k in range(103)]
    options = {"chunks": (10, 7, 3), "compression": "gzip"}
    for chosen in ({}, options):
        file = saved(
            lambda f, o=chosen: [
                f.create_dataset(f"{name}_{part}", data=data[span], **(o if name == "X" else {}))
                for part, span in (("train", slice(0, 70)), ("test", slice(70, 103)))
                for name, data in (("X", X), ("y", Y))
            ]
        )
        part = READER.part(file, whole=False)
        assert part.extra["split"][0].tolist() == [0] * 33 + [1] * 70
        assert part.extra["split"][1] == ("test", "train")
        found = everything(READER, file)
        assert same(found["X"], np.concatenate([X[70:], X[:70]]))
        assert same(found["y"], np.concatenate([Y[70:], Y[:70]]))


def test_what_is_no_number_or_lies_elsewhere_is_left_out_and_said(tmp_path: Path) -> None:
    def fill(f: Any) -> None:
        f["x"] = X
        f["gone"] = h5py.ExternalLink("/etc/passwd", "/x")
        f.create_dataset("out", (3,), "i8", external=[("/etc/passwd", 0, 24)])
        f["record"] = np.zeros(3, [("a", "i4"), ("b", "f4")])
        f.create_dataset("virtual", data=h5py.Empty("f4"))

    part = READER.part(saved(fill), whole=False)
    assert [one.name for one in part.fields] == ["x"]
    assert {text.partition("”")[0].removeprefix("“") for text in part.left_out} == {
        "out",
        "record",
        "virtual",
    }


def test_a_set_streams_in_any_order_and_a_cut_file_is_refused(tmp_path: Path) -> None:
    for k in range(3):
        with h5py.File(tmp_path / f"{k}.h5", "w") as f:
            f.create_dataset("x", data=X + k, chunks=(16, 7, 3), compression="gzip")
            f.create_dataset("y", data=Y)
    seen = np.concatenate([b["x"].numpy().copy() for b in caudal.stream(tmp_path, 32, ram="32MiB", seed=3)])
    want = np.concatenate([X + k for k in range(3)])
    np.testing.assert_allclose(np.sort(seen.ravel()), np.sort(want.ravel()))
    whole = (tmp_path / "0.h5").read_bytes()
    for share in (0.2, 0.6, 0.95):
        refusal(READER, MemoryFile(whole[: int(len(whole) * share)], "cut.h5"))


@pytest.mark.parametrize(
    ("fill", "word"),
    [
        (lambda f: f.create_dataset("x", (1 << 40,), "f4"), "no array"),
        (lambda f: f.create_dataset("x", (1 << 40,), "f4", chunks=(1 << 20,)), "written"),
        (lambda f: f.create_dataset("x", data=X, chunks=(9, 7, 3), scaleoffset=3), "filter"),
        (lambda f: [f.create_dataset(f"g{k}/x", data=Y) for k in range(300)], "more than"),
        (lambda f: None, "no array"),
    ],
)
def test_claims_without_bytes_and_unknown_filters_are_refused(fill: Any, word: str) -> None:
    assert word in refusal(READER, saved(fill)).message


def test_changed_bytes_never_do_harm() -> None:
    options = {"chunks": (20, 7, 3), "compression": "gzip", "shuffle": True}
    file = saved(lambda f: (f.create_dataset("x", data=X, **options), f.create_dataset("y", data=Y)))
    check_fuzz(READER, file._data, "x.h5", 150)
    assert same(everything(READER, file)["x"], X)


def test_a_broken_chunk_is_a_sentence() -> None:
    file = saved(lambda f: f.create_dataset("x", data=X, chunks=(20, 7, 3), compression="gzip"))
    part = READER.part(file, whole=False)
    array = part.notes[2].rows["x"][0]  # type: ignore[index]
    data = bytearray(file._data)
    at = int(array.table[2, -3])
    data[at : at + 40] = bytes(40)
    into = {"x": np.empty((20, 7, 3), np.float32)}
    with pytest.raises(UnreadableFile, match="chunk"):
        READER.read(MemoryFile(bytes(data), "x.h5"), part, 2, into)


def test_a_child_that_is_killed_or_hangs_costs_one_file(monkeypatch: pytest.MonkeyPatch) -> None:
    file = saved(lambda f: f.create_dataset("x", data=X))
    READER.part(file, whole=False)
    child = hdf5_process._child
    assert child is not None
    os.kill(child._process.pid, signal.SIGKILL)
    assert READER.part(file, whole=False).samples == len(X)
    monkeypatch.setattr(hdf5_process, "PATIENCE_SECONDS", 0.0)
    assert "library ended" in refusal(READER, file).message
    monkeypatch.undo()
    assert READER.part(file, whole=False).samples == len(X)
    in_threads(lambda: everything(READER, file))


def test_the_checksum_is_that_of_the_library() -> None:
    stored = saved(lambda f: f.create_dataset("x", data=X, chunks=X.shape, fletcher32=True))
    array = READER.part(stored, whole=True).notes[0].rows["x"][0]  # type: ignore[index]
    at, size = array.table[0, -3:-1].tolist()
    chunk = stored._data[at : at + size]
    assert int.from_bytes(chunk[-4:], "little") == _fletcher32(chunk[:-4])

"""Files are taken for alike only where they say the same of themselves, whatever byte of them differs."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from caudal.core.errors import UnreadableFile
from caudal.data import sample_headers
from caudal.data.sample_files.free_values import free_values
from caudal.data.sample_files.likeness import LikenessReader
from caudal.data.sample_files.npz import NpzReader
from caudal.data.sample_files.torch_file import TorchReader
from caudal.data.sample_index import index_samples
from tests.data.sample_files.all_alike import MemoryFile

DRAW = np.random.default_rng(0)


def torch_bytes(content: Any, path: Path) -> bytes:
    torch.save(content, path)
    return path.read_bytes()


def npz_bytes(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def said(reader: Any, data: bytes, name: str) -> Any:
    """What a file says of itself, as plain values; `None` if it cannot be read."""
    try:
        part = reader.part(MemoryFile(data, name), True)
    except UnreadableFile:
        return None
    plain = {key: value.tolist() for key, value in {**part.rows, **(part.places or {})}.items()}
    places = {key: value.tolist() for key, value in (part.places or {}).items()}
    return part.fields, part.ends.tolist(), plain, places, part.left_out, part.scratch_bytes, part.codec


CONTENT = {
    "dict": lambda: {"sequence": torch.randn(5, 2), "label": 1, "id": "seed 7"},
    "tuple": lambda: (torch.randn(4, 3), torch.tensor(2)),
    "many": lambda: {"x": torch.randn(900, 3), "y": torch.zeros(3, dtype=torch.int64), "z": 0.5},
}


@pytest.mark.parametrize("kind", [*CONTENT, "npz", "npz of many"])
def test_a_byte_that_is_free_changes_nothing_and_any_other_is_seen(kind: str, tmp_path: Path) -> None:
    reader: Any = NpzReader() if kind.startswith("npz") else TorchReader()
    name = "x.npz" if kind.startswith("npz") else "x.pt"
    if name == "x.npz":
        rows = 900 if "many" in kind else 5
        data = npz_bytes(x=DRAW.normal(size=(rows, 3)).astype(np.float32), y=np.array(1))
    else:
        data = torch_bytes(CONTENT[kind](), tmp_path / "0123456.pt")
    assert isinstance(reader, LikenessReader)
    likeness = reader.likeness(MemoryFile(data, name), True)
    assert likeness is not None
    truth = said(reader, data, name)

    def looked_at(changed: bytes) -> bytes:
        return b"".join(changed[first : first + count] for first, count in likeness.reads)

    key = likeness.key(looked_at(data))
    assert key is not None
    free = 0
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= int(DRAW.integers(1, 256))
        if likeness.is_like(looked_at(bytes(changed)), key):
            free += 1
            if at % 7 == 0:  # each takes a millisecond
                assert said(reader, bytes(changed), name) in (truth, None)
    assert free > 0


def test_values_are_free_in_a_pickle_and_names_shapes_and_types_are_not(tmp_path: Path) -> None:
    data = torch_bytes({"x": torch.zeros(3, 2), "label": 7, "id": "abcdef", "again": "x"}, tmp_path / "a.pt")
    begin = data.index(b"\x80\x02}")
    pickled = data[begin : data.index(b".PK", begin) + 1] if b".PK" in data[begin:] else data[begin:]
    found = {pickled[first:last] for first, last in free_values(pickled)}
    assert found == {b"\x07", b"abcdef"}  # “again” is the text of a name, too
    assert free_values(b"\x80\x02K\x01.") == []


@pytest.mark.parametrize("suffix", [".pt", ".npz"])
def test_an_index_is_the_same_whether_files_are_compared_or_understood(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for k in range(60):
        length = int(DRAW.integers(1, 6))
        x = DRAW.normal(size=(length, 3)).astype(np.float32)
        if suffix == ".npz":
            np.savez(tmp_path / f"sample {k}", x=x, y=np.array(k))
        elif k % 3:
            torch.save({"x": torch.from_numpy(x), "y": torch.tensor(k)}, tmp_path / f"{k:04d}.pt")
        else:  # of the same fields, not of the same bytes
            torch.save({"x": torch.from_numpy(x), "y": torch.tensor(k)}, tmp_path / f"odd{k}.pt")
    understood: list[str] = []
    real = sample_headers.part_of
    monkeypatch.setattr(
        sample_headers, "part_of", lambda name, *more: understood.append(name) or real(name, *more)
    )
    quick = index_samples(str(tmp_path), "file")
    few = len(understood)
    monkeypatch.setattr(sample_headers, "peek", lambda names, *_reads: ((name, None) for name in names))
    slow = index_samples(str(tmp_path), "file")
    assert few < 40
    assert len(understood) - few >= 60
    assert quick.fields == slow.fields
    assert quick.columns.places is not None
    assert slow.columns.places is not None
    for name in quick.columns.places:
        assert quick.columns.places[name].tolist() == slow.columns.places[name].tolist()
    assert quick.columns.row_ends["x"].tolist() == slow.columns.row_ends["x"].tolist()


def test_a_truncated_or_broken_file_among_those_that_are_alike_is_named(tmp_path: Path) -> None:
    for k in range(40):
        np.savez(tmp_path / f"{k:02d}", x=np.full((4, 3), k, np.float32), y=np.array(k))
    path = tmp_path / "31.npz"
    data = bytearray(path.read_bytes())
    data[data.index(b"\n") + 5] ^= 255  # a value, whose checksum is written elsewhere
    path.write_bytes(data)
    (tmp_path / "35.npz").write_bytes(path.read_bytes()[:-20])
    found = index_samples(str(tmp_path), "file", tolerant=True)
    assert [Path(name).name for name, _why in found.unreadable] == ["31.npz", "35.npz"]

"""What every reader of sample files owes, checked while a file is read; and files that live in memory."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from caudal.core.errors import UnreadableFile
from caudal.data.sample_files.base import Array, Field, Part, SampleReader

CANARY = 0xA5
MOST_FUZZ_BYTES = 1 << 24


class MemoryFile:
    """A `ByteFile` that is no file on a disk: nothing but `read_into` and `size_bytes` can be used."""

    def __init__(self, data: bytes, name: str) -> None:
        self.name, self.size_bytes = name, len(data)
        self._data, self._lock, self.reads = data, threading.Lock(), 0
        self.largest_read_bytes = 0

    def read_into(self, offset: int, buffer: memoryview) -> None:
        with self._lock:
            self.reads += 1
            self.largest_read_bytes = max(self.largest_read_bytes, len(buffer))
        if not 0 <= offset <= offset + len(buffer) <= self.size_bytes:
            raise UnreadableFile(f"{self.name} ends before byte {offset + len(buffer)}.", path=self.name)
        buffer[:] = self._data[offset : offset + len(buffer)]

    def close(self) -> None:
        raise AssertionError("a reader does not close what it did not open")


def rows_of(part: Part, field: Field) -> Array:
    """The rows that each sample has in the array of `field`."""
    return part.rows[field.name] if field.ragged else np.ones(part.samples, np.int64)


def check_part(part: Part, size_bytes: int) -> None:
    """The contract of `Part`."""
    names = [field.name for field in part.fields]
    assert names
    assert len(set(names)) == len(names)
    assert part.ends.dtype == np.int64
    assert np.all(np.diff(part.ends, prepend=0) > 0), "a block without a sample"
    assert set(part.rows) == {field.name for field in part.fields if field.ragged}
    for field in part.fields:
        assert field.dtype.isnative
        rows = rows_of(part, field)
        assert len(rows) == part.samples
        assert rows.dtype == np.int64
        assert np.all(rows >= 0)
    if part.places is None:
        assert part.scratch_bytes > 0
        return
    assert set(part.places) == set(names)
    assert np.array_equal(part.ends, np.arange(1, part.samples + 1))
    for field in part.fields:
        places, nbytes = part.places[field.name], rows_of(part, field) * field.row_bytes
        assert places.dtype == np.int64
        assert len(places) == part.samples
        assert np.all((nbytes == 0) | ((places >= 0) & (places + nbytes <= size_bytes)))


def everything(reader: SampleReader, file: Any, whole: bool = False) -> dict[str, Array]:
    """Every field of a file, all samples joined, from places or blocks; the contract is checked meanwhile."""
    return arrays_of(reader, file, reader.part(file, whole))


def arrays_of(reader: SampleReader, file: Any, part: Part) -> dict[str, Array]:
    check_part(part, file.size_bytes)
    arrays = {}
    for field in part.fields:
        # Between two rows of canaries, which a block that writes too much would change.
        rows = int(rows_of(part, field).sum())
        padded = np.full((rows + 2) * field.row_bytes, CANARY, np.uint8)
        arrays[field.name] = padded.view(field.dtype).reshape(rows + 2, *field.row_shape)
    inner = {name: array[1:-1] for name, array in arrays.items()}
    if part.places is not None:
        for field in part.fields:
            _fetch(file, part, field, inner[field.name])
    else:
        first = np.concatenate([np.zeros(1, np.int64), part.ends])
        bounds = {
            field.name: np.concatenate([np.zeros(1, np.int64), np.cumsum(rows_of(part, field))])[first]
            for field in part.fields
        }
        for block in range(len(part.ends)):
            into = {
                name: array[bounds[name][block] : bounds[name][block + 1]] for name, array in inner.items()
            }
            reader.read(file, part, block, into)
    for array in arrays.values():
        edges = array[[0, -1]].view(np.uint8) if array.size else np.full(1, CANARY)
        assert np.all(edges == CANARY), "a block wrote beyond its samples"
    return inner


def _fetch(file: Any, part: Part, field: Field, into: Array) -> None:
    assert part.places is not None
    at = 0
    for place, rows in zip(part.places[field.name], rows_of(part, field), strict=True):
        piece = into[at : at + rows].reshape(-1).view(np.uint8)
        if len(piece):
            file.read_into(int(place), piece.data)
        at += rows


def same(one: Array, other: Array) -> bool:
    """Equal dtype, shape and values; NaN equals NaN."""
    return (
        one.dtype == other.dtype
        and one.shape == other.shape
        and np.array_equal(one, other, equal_nan=one.dtype.kind in "fc")
    )


def refusal(reader: SampleReader, file: Any, whole: bool = False) -> UnreadableFile:
    """The error of a file that has to be refused; a sentence and a hint."""
    with pytest.raises(UnreadableFile) as caught:
        everything(reader, file, whole)
    assert caught.value.message.endswith(".")
    assert caught.value.hint.endswith((".", "!"))
    assert str(caught.value.path) == file.name
    return caught.value


def mutated(data: bytes, random: np.random.Generator) -> bytes:
    """Bytes changed near the head, near the end or anywhere, a piece cut out, or the end cut off."""
    raw = bytearray(data)
    kind = int(random.integers(0, 5))
    if kind < 3:
        low = (0, max(0, len(raw) - 400), 0)[kind]
        high = (min(len(raw), 400), len(raw), len(raw))[kind]
        for place in random.integers(low, high, int(random.integers(1, 6))):
            raw[place] = int(random.integers(0, 256))
    elif kind == 3:
        start = int(random.integers(0, len(raw)))
        raw[start : start + 40] = random.bytes(int(random.integers(0, 60)))
    else:
        del raw[int(random.integers(1, len(raw))) :]
    return bytes(raw)


def check_fuzz(reader: SampleReader, data: bytes, name: str, rounds: int, seed: int = 0) -> None:
    """Whatever bytes are changed: arrays that keep the contract, or `UnreadableFile`; nothing else."""
    random, refused = np.random.default_rng(seed), 0
    for number in range(rounds):
        file = MemoryFile(mutated(data, random), name)
        try:
            part = reader.part(file, whole=bool(number % 2))
            check_part(part, file.size_bytes)
            nbytes = sum(int(rows_of(part, field).sum()) * field.row_bytes for field in part.fields)
            if nbytes <= MOST_FUZZ_BYTES:
                arrays_of(reader, file, part)
        except UnreadableFile:
            refused += 1
    assert refused


def in_threads(work: Callable[[], object], threads: int = 4) -> None:
    """`work` in several threads at once; the first error is raised here."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(work) for _ in range(threads)]:
            done.result()

"""A mapped file gives the bytes that reading gives, and says what it cannot read."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caudal.core.errors import UnreadableFile
from caudal.data.byte_file import LocalFile
from caudal.data.mapped_file import MappedFile
from caudal.memory.meters import charged_bytes

SIZE = 2_000_003


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mapped") / "a.bin"
    path.write_bytes(np.random.default_rng(0).bytes(SIZE))
    return path


@settings(max_examples=60, deadline=None)
@given(st.integers(0, SIZE), st.integers(0, 400_000))
def test_it_gives_what_reading_gives(path: Path, offset: int, count: int) -> None:
    count = min(count, SIZE - offset)
    found, wanted = bytearray(count), bytearray(count)
    mapped, plain = MappedFile(path), LocalFile(path)
    mapped.read_into(offset, memoryview(found))
    plain.read_into(offset, memoryview(wanted))
    assert found == wanted
    mapped.close()
    plain.close()


def test_what_is_not_in_memory_is_read(path: Path) -> None:
    mapped = MappedFile(path)
    with path.open("rb") as handle:
        os.fsync(handle.fileno())
        os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    found = bytearray(SIZE)
    mapped.read_into(0, memoryview(found))
    assert found == path.read_bytes()
    mapped.close()


def test_a_file_that_was_cut_is_an_error_and_no_signal(tmp_path: Path) -> None:
    path = tmp_path / "cut.bin"
    path.write_bytes(bytes(SIZE))
    mapped = MappedFile(path)
    os.truncate(path, 300_000)
    with pytest.raises(UnreadableFile, match="ends before"):
        mapped.read_into(200_000, memoryview(bytearray(400_000)))
    mapped.read_into(0, memoryview(bytearray(200_000)))
    mapped.close()


def test_nothing_is_charged_for_what_is_mapped(path: Path) -> None:
    mapped, found = MappedFile(path), bytearray(1_000_000)
    before = charged_bytes(os.getpid())
    mapped.read_into(0, memoryview(found))
    mapped.read_into(1_000_000, memoryview(found))
    assert charged_bytes(os.getpid()) - before < 300_000
    mapped.close()


def test_threads_share_a_file(path: Path) -> None:
    wanted, mapped, wrong = path.read_bytes(), MappedFile(path), []

    def read(seed: int) -> None:
        random = np.random.default_rng(seed)
        for _round in range(50):
            offset, count = int(random.integers(0, 1_000_000)), int(random.integers(0, 1_000_000))
            found = bytearray(count)
            mapped.read_into(offset, memoryview(found))
            if found != wanted[offset : offset + count]:
                wrong.append(offset)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    mapped.close()
    assert not wrong

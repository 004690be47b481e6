"""What is read past the page cache is what lies in the file, in whatever pieces it is asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

import caudal
from caudal.core.errors import UnreadableFile
from caudal.data import mapped
from caudal.data.byte_file import LocalFile
from caudal.data.uncached_file import UncachedFile
from caudal.runs.samples import open_set

SIZE = 3 * 2**20 + 17


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of random bytes, longer than what is read at a time, that ends within a page."""
    path = tmp_path_factory.mktemp("uncached") / "bytes"
    path.write_bytes(np.random.default_rng(0).bytes(SIZE))
    return path


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, SIZE), st.one_of(st.integers(0, 9), st.integers(0, 9000), st.integers(0, SIZE))
        ),
        max_size=5,
    )
)
def test_spans_are_filled_with_what_lies_there_side_by_side_apart_or_one_over_the_other(
    path: Path, spans: list[tuple[int, int]]
) -> None:
    file, plain = UncachedFile(path), LocalFile(path)
    wanted = [(offset, min(nbytes, SIZE - offset)) for offset, nbytes in spans]
    buffers = [bytearray(nbytes) for _offset, nbytes in wanted]
    file.read_spans(
        [(offset, memoryview(one)) for (offset, _nbytes), one in zip(wanted, buffers, strict=True)]
    )
    for (offset, nbytes), found in zip(wanted, buffers, strict=True):
        alone, truth = bytearray(nbytes), bytearray(nbytes)
        file.read_into(offset, memoryview(alone))
        plain.read_into(offset, memoryview(truth))
        assert found == alone == truth
    file.close()
    plain.close()


@pytest.mark.parametrize("offset", [0, SIZE - 5, SIZE + 9000])
def test_a_file_that_ends_before_is_told_with_where_it_should_have_ended(path: Path, offset: int) -> None:
    file = UncachedFile(path)
    with pytest.raises(UnreadableFile, match=f"ends before byte {offset + SIZE + 1}"):
        file.read_into(offset, memoryview(bytearray(SIZE + 1)))
    file.close()


def test_of_a_set_larger_than_memory_a_part_stays_in_the_cache_and_the_samples_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for k in range(12):
        x = np.random.default_rng(k).standard_normal((1200 + 97 * k, 64), np.float32)
        save_file({"x": x, "y": np.array(k, np.int64)}, tmp_path / f"{k:02}.safetensors")
    samples = open_set(str(tmp_path), "file")

    def content() -> list[tuple[int, bytes]]:
        with caudal.stream(tmp_path, 3, ram="24MiB", seed=2) as stream:
            return [
                (number, one.tobytes())
                for batch in stream
                for one, number in zip(batch.numpy("x"), batch.numpy("y").tolist(), strict=True)
            ]

    truth = content()
    assert mapped.cached_files(samples) == 12
    for room, cached in ((2**40, 12), (2 * int(samples.columns.sizes[:4].sum()) + 2, 4), (0, 0)):
        monkeypatch.setattr(mapped, "available_ram", lambda room=room: room)
        assert mapped.cached_files(samples) == cached
        assert content() == truth

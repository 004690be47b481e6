"""What NumPy saved comes back as NumPy's own array, undecoded wherever its bytes lie as in memory."""

from __future__ import annotations

import io
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from caudal.data.byte_file import LocalFile
from caudal.data.sample_files import SAMPLE_READERS
from caudal.data.sample_files.npy import NpyReader
from tests.data.sample_files.all_alike import MemoryFile, check_fuzz, everything, refusal, same

READER = NpyReader()
SLOW = [HealthCheck.too_slow]  # a busy machine is no fault

DTYPES = st.one_of(
    hnp.boolean_dtypes(),
    hnp.integer_dtypes(endianness="?"),
    hnp.unsigned_integer_dtypes(endianness="?"),
    hnp.floating_dtypes(endianness="?", sizes=(16, 32, 64)),
    hnp.complex_number_dtypes(endianness="?", sizes=(64, 128)),
)


def saved(x: Any, **options: Any) -> MemoryFile:
    stream = io.BytesIO()
    np.save(stream, x, **options)
    return MemoryFile(stream.getvalue(), "x.npy")


def headed(header: str, data: bytes = b"", version: tuple[int, int] = (1, 0)) -> MemoryFile:
    """A file with a header of one's own."""
    text = header.encode("latin1") + b"\n"
    length = len(text).to_bytes(2 if version[0] == 1 else 4, "little")
    return MemoryFile(b"\x93NUMPY" + bytes(version) + length + text + data, "x.npy")


@settings(max_examples=100, deadline=None, suppress_health_check=SLOW)
@given(
    x=DTYPES.flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0, max_side=5))),
    fortran=st.booleans(),
    whole=st.booleans(),
)
def test_what_numpy_saved_comes_back(x: Any, fortran: bool, whole: bool) -> None:
    x = np.asfortranarray(x) if fortran else x
    file = saved(x)
    if x.ndim == 0 and not whole:
        assert 'samples="file"' in refusal(READER, file).hint
        return
    native = x.astype(x.dtype.newbyteorder("="))
    expected = native.reshape(1, *x.shape) if x.ndim == 0 else native
    assert same(everything(READER, file, whole)["x"], expected)
    part = READER.part(file, whole)
    assert part.samples == (1 if whole else len(x))
    assert part.fields[0].shape == (() if x.ndim == 0 else ((None,) if whole else ()) + x.shape[1:])
    as_in_memory = x.dtype.isnative and (x.flags.c_contiguous or x.ndim < 2)
    assert (part.places is not None) == as_in_memory
    assert part.codec == ("raw" if as_in_memory else "npy")


@pytest.mark.parametrize("dtype", ["<f4", ">f4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_larger_than_a_piece_come_back_in_blocks(dtype: str, order: Any) -> None:
    x = np.random.default_rng(0).normal(size=(3000, 11, 37)).astype(dtype, order=order)
    file = saved(x)
    file.largest_read_bytes = 0
    assert same(everything(READER, file)["x"], x.astype("f4"))
    part = READER.part(file, whole=False)
    if part.places is None:
        assert file.largest_read_bytes <= 1 << 20
        assert len(part.ends) == (5 if order == "C" else 1)


def test_a_local_file_is_read_like_any_other(tmp_path: Path) -> None:
    x = np.arange(24, dtype=">i2").reshape(6, 4)
    np.save(tmp_path / "ñ.npy", x)
    assert same(everything(SAMPLE_READERS.get("npy")(), LocalFile(tmp_path / "ñ.npy"))["x"], x.astype("i2"))


def test_only_the_header_is_read_of_an_array_in_memory_order() -> None:
    file = saved(np.zeros((1000, 1000)))
    part = READER.part(file, whole=False)
    assert part.samples == 1000
    assert (file.reads, file.largest_read_bytes) == (1, 512)


@pytest.mark.parametrize(
    ("x", "why"),
    [
        (np.array([{"a": 1}], object), "never unpickled"),
        (np.zeros(2, [("a", "f4"), ("b", "i4")]), "records"),
        (np.array(["a", "b"]), "text"),
        (np.array([b"a"]), "text"),
        (np.zeros(2, "M8[s]"), "dates"),
        (np.zeros(2, np.longdouble), "PyTorch does not have"),
    ],
)  # fmt: skip
def test_what_is_no_array_of_numbers_is_refused_by_its_header(x: Any, why: str) -> None:
    assert why in refusal(READER, saved(x, allow_pickle=True)).message


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "boom",))

    refusal(READER, saved(np.array([Bomb()], object), allow_pickle=True))
    assert not (tmp_path / "boom").exists()


@pytest.mark.parametrize(
    "shape",
    ["(1000000000000,)", "(3, -1)", "(1000000000000, 0)", "(True, 2.5)", "(99999999999999999999999, 3)",
     "(2,) * 9", "[3]", "(" + "1, " * 40 + ")", "(4,)"],
)  # fmt: skip
@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_a_header_that_lies_is_refused_and_nothing_is_allocated(shape: str, version: tuple[int, int]) -> None:
    file = headed(f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}", bytes(12), version)
    tracemalloc.start()
    refusal(READER, file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def test_an_honest_header_of_each_version_is_read() -> None:
    for version in ((1, 0), (2, 0), (3, 0)):
        file = headed(
            "{'descr': '<i2', 'fortran_order': False, 'shape': (3,)}", bytes([1, 0, 2, 0, 3, 0]), version
        )
        assert same(everything(READER, file)["x"], np.array([1, 2, 3], np.int16))


@pytest.mark.parametrize(
    "data",
    [b"x", b"\x93NUMPY", b"\x93NUMPY\x01\x00\xff\xff{", b"PK\x03\x04" * 20, b"\x93NUMPY\x09\x00" + b" " * 99],
)
def test_other_files_are_refused(data: bytes) -> None:
    assert "header" in refusal(READER, MemoryFile(data, "x.npy")).message


def test_deeply_nested_headers_are_refused() -> None:
    for header in ("(" * 9000, "[" * 9000 + "]" * 9000, "-" * 9000 + "1", "{1:" * 3000):
        refusal(READER, headed(header))


def test_a_truncated_file_is_refused() -> None:
    data = saved(np.arange(100.0))._data
    for length in range(1, len(data), 37):
        refusal(READER, MemoryFile(data[:length], "x.npy"))


def test_bytes_behind_the_array_are_told() -> None:
    file = MemoryFile(saved(np.arange(3))._data + saved(np.arange(4))._data, "x.npy")
    assert len(READER.part(file, whole=False).left_out) == 1
    assert same(everything(READER, file)["x"], np.arange(3))


def test_changed_bytes_give_arrays_or_a_refusal() -> None:
    check_fuzz(READER, saved(np.arange(60, dtype=">f8").reshape(20, 3))._data, "x.npy", 300)

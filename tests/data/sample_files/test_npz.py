"""What `np.savez` wrote comes back: stored arrays undecoded, compressed ones as NumPy unpacks them."""

from __future__ import annotations

import io
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from caudal.data.byte_file import LocalFile
from caudal.data.sample_files import SAMPLE_READERS
from caudal.data.sample_files.npz import NpzReader
from tests.data.sample_files.all_alike import (
    MemoryFile,
    check_fuzz,
    everything,
    in_threads,
    refusal,
    same,
)

READER = NpzReader()
SLOW = [HealthCheck.too_slow]  # a busy machine is no fault
NAMES = st.text(
    st.characters(exclude_characters="/\\\0", exclude_categories=("Cs",)), min_size=1, max_size=6
).filter(lambda name: not name.endswith((".ends", ".npy")) and name not in ("file", ".", ".."))
DTYPES = st.sampled_from(["?", "i1", "<u2", ">i4", "<i8", "<f2", "<f4", ">f8", "<c8"])


def saved(arrays: dict[str, Any], compressed: bool = False) -> MemoryFile:
    stream = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(stream, **arrays)
    return MemoryFile(stream.getvalue(), "x.npz")


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> MemoryFile:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return MemoryFile(stream.getvalue(), "x.npz")


def npy(x: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, x)
    return stream.getvalue()


def native(x: Any) -> Any:
    return x.astype(x.dtype.newbyteorder("="))


@st.composite
def tables(draw: Any) -> dict[str, Any]:
    """Arrays that count the same number of samples."""
    samples, names = draw(st.integers(0, 6)), draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    tails = hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=4)
    arrays = {name: draw(hnp.arrays(draw(DTYPES), (samples, *draw(tails)))) for name in names}
    return {name: np.asfortranarray(x) if draw(st.booleans()) else x for name, x in arrays.items()}


@settings(max_examples=80, deadline=None, suppress_health_check=SLOW)
@given(arrays=tables(), compressed=st.booleans(), whole=st.booleans())
def test_what_numpy_saved_comes_back(arrays: dict[str, Any], compressed: bool, whole: bool) -> None:
    file = saved(arrays, compressed)
    found = everything(READER, file, whole)
    loaded = np.load(io.BytesIO(file._data))
    assert list(found) == list(arrays)
    assert all(same(found[name], native(loaded[name])) for name in arrays)
    part = READER.part(file, whole)
    assert part.samples == (1 if whole else len(next(iter(arrays.values()))))
    raw = not compressed and all(x.dtype.isnative and (x.flags.c_contiguous) for x in arrays.values())
    assert (part.places is not None) == raw


@settings(max_examples=60, deadline=None, suppress_health_check=SLOW)
@given(
    lengths=st.lists(st.integers(0, 5), max_size=8),
    compressed=st.booleans(),
    kind=st.sampled_from(["i4", "u1", "u8", ">i8"]),
)
def test_samples_of_different_length_lie_joined_beside_their_ends(
    lengths: list[int], compressed: bool, kind: str
) -> None:
    x = np.arange(sum(lengths) * 3, dtype="f4").reshape(-1, 3)
    arrays = {"x": x, "x.ends": np.cumsum(lengths).astype(kind), "y": np.arange(len(lengths))}
    file = saved(arrays, compressed)
    part = READER.part(file, whole=False)
    assert [(field.name, field.shape) for field in part.fields] == [("x", (None, 3)), ("y", ())]
    assert part.rows["x"].tolist() == lengths
    found = everything(READER, file)
    assert same(found["x"], x)
    assert same(found["y"], arrays["y"])
    if part.places is not None:
        first = int(part.places["y"][0]) if lengths else 0
        assert part.places["y"].tolist() == [first + 8 * i for i in range(len(lengths))]


@pytest.mark.parametrize(
    "ends",
    [np.array([2, 1, 4]), np.array([1, 2, 3]), np.array([-1, 2, 4]), np.array([1, 2, 5]), np.ones(3),
     np.array([[4, 4, 4]]), np.array([2, 2**64 - 1, 4], np.uint64), np.array(4), np.array([], int),
     np.array([2**63 - 1, -2, 4])],
)  # fmt: skip
@pytest.mark.parametrize("compressed", [False, True])
def test_ends_that_do_not_rise_to_the_last_row_are_refused(ends: Any, compressed: bool) -> None:
    error = refusal(READER, saved({"x": np.zeros(4), "x.ends": ends}, compressed))
    assert "x.ends" in error.message


def test_ends_without_their_array_are_a_field() -> None:
    assert list(everything(READER, saved({"ends": np.arange(3), "z.ends": np.arange(3)}))) == [
        "ends",
        "z.ends",
    ]


def test_a_whole_file_is_one_sample_with_every_array_as_a_field() -> None:
    arrays = {
        "x": np.ones((4, 2), "f4"),
        "x.ends": np.array([1, 4]),
        "rate": np.array(250.0),
        "e": np.zeros((0, 3)),
    }
    part = READER.part(saved(arrays), whole=True)
    assert part.samples == 1
    assert {field.name: field.shape for field in part.fields} == {
        "x": (None, 2), "x.ends": (None,), "rate": (), "e": (None, 3)
    }  # fmt: skip
    assert {name: rows.tolist() for name, rows in part.rows.items()} == {"x": [4], "x.ends": [2], "e": [0]}
    for compressed in (False, True):
        found = everything(READER, saved(arrays, compressed), whole=True)
        assert same(found["rate"], np.array([250.0]))
        assert same(found["x"], arrays["x"])


def test_arrays_that_count_different_samples_are_refused_by_name() -> None:
    error = refusal(READER, saved({"x": np.zeros((5, 2)), "y": np.zeros(4)}))
    assert "x 5, y 4" in error.message
    assert 'samples="file"' in error.hint


def test_one_compressed_array_makes_the_whole_file_decoded() -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("x.npy", npy(np.arange(5)))
        archive.writestr("y.npy", npy(np.arange(5.0)), zipfile.ZIP_DEFLATED)
    file = MemoryFile(stream.getvalue(), "x.npz")
    part = READER.part(file, whole=False)
    assert (part.places, part.codec, part.ends.tolist()) == (None, "npz", [5])
    assert same(everything(READER, file)["y"], np.arange(5.0))


def test_what_is_left_out_is_told() -> None:
    file = zipped(
        {"x.npy": npy(np.arange(3)), "a.npy": npy(np.array(1.5)), "s.npy": npy(np.array(["u", "v"])),
         "read me.txt": b"hello"}
    )  # fmt: skip
    part = READER.part(file, whole=False)
    assert [field.name for field in part.fields] == ["x"]
    assert all(any(f"“{name}”" in line for line in part.left_out) for name in ("a", "s", "read me.txt"))


@pytest.mark.parametrize("x", [np.array([None]), np.zeros(1, [("a", int)])])
def test_objects_and_records_are_refused_and_never_unpickled(x: Any) -> None:
    assert "“bad”" in refusal(READER, saved({"good": np.zeros(1), "bad": x})).message


def test_large_compressed_arrays_are_unpacked_within_the_scratch_that_the_part_names() -> None:
    x = np.arange(9 << 20, dtype=np.uint8).reshape(-1, 3)
    for order in ("C", "F"):
        file = saved({"x": np.asarray(x, order=order)}, compressed=True)
        part = READER.part(file, whole=False)
        into = {"x": np.empty_like(x, order="C")}
        tracemalloc.start()
        READER.read(file, part, 0, into)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert np.array_equal(into["x"], x)
        assert peak < part.scratch_bytes < x.nbytes


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_refused(method: int) -> None:
    assert "deflate" in refusal(READER, zipped({"x.npy": npy(np.arange(9))}, method)).message


def test_a_member_that_claims_more_than_it_can_hold_is_refused_before_it_is_unpacked() -> None:
    header = (
        b"\x93NUMPY\x01\x00\x76\x00"
        + b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000,), }".ljust(117)
    )
    data = zipped({"x.npy": header + b"\n" + bytes(80)}, zipfile.ZIP_DEFLATED)._data
    assert "claims" in refusal(READER, MemoryFile(data, "x.npz")).message
    # The directory may lie as well: the size before compression stands 24 bytes into its entry.
    raw, entry = bytearray(data), data.index(b"PK\x01\x02")
    raw[entry + 24 : entry + 28] = (4_000_000_000).to_bytes(4, "little")
    assert "claims more bytes" in refusal(READER, MemoryFile(bytes(raw), "x.npz")).message


def test_a_wrong_checksum_is_noticed_while_unpacking() -> None:
    data = bytearray(saved({"x": np.arange(50)}, compressed=True)._data)
    entry = data.index(b"PK\x01\x02")
    data[entry + 16] ^= 1
    assert "CRC" in refusal(READER, MemoryFile(bytes(data), "x.npz")).message


def test_directories_of_more_than_32_bits_are_understood() -> None:
    stream, x = io.BytesIO(), np.arange(12.0).reshape(4, 3)
    with zipfile.ZipFile(stream, "w") as archive, archive.open("x.npy", "w", force_zip64=True) as member:
        member.write(npy(x))
    # What a file has whose member lies beyond 4 GiB: sizes and offset in the extra field of the directory.
    raw = stream.getvalue()
    entry = raw.index(b"PK\x01\x02")
    end = raw.index(b"PK\x05\x06")
    sizes = raw[entry + 24 : entry + 28] + bytes(4) + raw[entry + 20 : entry + 24] + bytes(4) + bytes(8)
    extra = b"\x01\x00\x18\x00" + sizes
    changed = bytearray(raw[entry:end])
    changed[20:28], changed[42:46] = b"\xff" * 8, b"\xff" * 4
    changed[30:32] = len(extra).to_bytes(2, "little")
    name_end = 46 + len("x.npy")
    directory = bytes(changed[:name_end]) + extra
    tail = bytearray(raw[end:])
    tail[12:16] = len(directory).to_bytes(4, "little")
    file = MemoryFile(raw[:entry] + directory + bytes(tail), "x.npz")
    assert READER.part(file, whole=False).places is not None
    assert same(everything(READER, file)["x"], x)


@pytest.mark.parametrize("data", [b"x", b"PK\x03\x04", b"PK\x05\x06" + bytes(18), b"\x93NUMPY" + bytes(99)])
def test_other_files_are_refused(data: bytes) -> None:
    refusal(READER, MemoryFile(data, "x.npz"))


def test_a_truncated_file_is_refused() -> None:
    for compressed in (False, True):
        data = saved({"x": np.arange(99.0), "y": np.arange(99)}, compressed)._data
        for length in range(1, len(data), 41):
            refusal(READER, MemoryFile(data[:length], "x.npz"))


def test_many_threads_read_one_file(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(500, 40))
    np.savez_compressed(tmp_path / "x.npz", x=x)
    file, reader = LocalFile(tmp_path / "x.npz"), SAMPLE_READERS.get("npz")()

    def work() -> None:
        assert same(everything(reader, file)["x"], x)

    in_threads(work)


def test_real_beats_come_back(data_dir: Path) -> None:
    path = data_dir / "seq_ecg5000" / "ecg5000.npz"
    with np.load(path) as loaded:
        found = everything(READER, LocalFile(path), whole=True)
        assert all(same(found[name], loaded[name]) for name in loaded)


@pytest.mark.parametrize("compressed", [False, True])
def test_changed_bytes_give_arrays_or_a_refusal(compressed: bool) -> None:
    arrays = {"x": np.arange(30.0).reshape(10, 3), "x.ends": np.array([3, 3, 10]), "y": np.arange(3)}
    check_fuzz(READER, saved(arrays, compressed)._data, "x.npz", 250)

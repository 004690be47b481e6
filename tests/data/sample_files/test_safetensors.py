"""Tensors come from where they lie in the file, and are those that the library itself loads."""

from __future__ import annotations

import json
import sys
import tracemalloc
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from caudal.data.byte_file import LocalFile
from caudal.data.sample_files import SAMPLE_READERS
from caudal.data.sample_files.safetensors import SafetensorsReader
from tests.data.sample_files.all_alike import MemoryFile, check_fuzz, everything, refusal, same

READER = SafetensorsReader()
SLOW = [HealthCheck.too_slow]  # a busy machine is no fault
NAMES = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=6).filter(
    lambda name: not name.endswith(".ends") and name != "__metadata__"
)
DTYPES = st.sampled_from(["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8"])


def saved(arrays: dict[str, Any], **options: Any) -> MemoryFile:
    return MemoryFile(safetensors.numpy.save(arrays, **options), "x.safetensors")


def headed(header: Any, values: bytes = b"") -> MemoryFile:
    """A file with a header of one's own."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return MemoryFile(len(text).to_bytes(8, "little") + text + values, "x.safetensors")


@st.composite
def tables(draw: Any) -> dict[str, Any]:
    samples, names = draw(st.integers(0, 6)), draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    tails = hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=4)
    return {name: draw(hnp.arrays(draw(DTYPES), (samples, *draw(tails)))) for name in names}


@settings(max_examples=80, deadline=None, suppress_health_check=SLOW)
@given(arrays=tables(), whole=st.booleans(), said=st.booleans())
def test_what_the_library_saved_comes_back(arrays: dict[str, Any], whole: bool, said: bool) -> None:
    file = saved(arrays, metadata={"by": "test"} if said else None)
    found, loaded = everything(READER, file, whole), safetensors.numpy.load(file._data)
    assert set(found) == set(arrays)
    assert all(same(found[name], loaded[name]) for name in arrays)
    part = READER.part(file, whole)
    assert part.places is not None
    assert part.samples == (1 if whole else len(next(iter(arrays.values()))))


@settings(max_examples=40, deadline=None, suppress_health_check=SLOW)
@given(lengths=st.lists(st.integers(0, 5), max_size=8))
def test_samples_of_different_length_lie_joined_beside_their_ends(lengths: list[int]) -> None:
    x = np.arange(sum(lengths) * 2, dtype="i2").reshape(-1, 2)
    file = saved({"x": x, "x.ends": np.cumsum(lengths).astype("i4"), "y": np.arange(len(lengths))})
    part = READER.part(file, whole=False)
    assert {field.name: field.shape for field in part.fields} == {"x": (None, 2), "y": ()}
    assert part.rows["x"].tolist() == lengths
    assert same(everything(READER, file)["x"], x)


def test_ends_that_do_not_rise_to_the_last_row_are_refused() -> None:
    for ends in ([3, 2, 4], [1, 2], [5]):
        refusal(READER, saved({"x": np.zeros(4), "x.ends": np.array(ends)}))


def test_a_local_file_is_read_like_any_other(tmp_path: Path) -> None:
    path, x = tmp_path / "un niño.safetensors", torch.arange(6.0).reshape(3, 2)
    safetensors.torch.save_file({"x": x}, path)
    assert same(everything(SAMPLE_READERS.get("safetensors")(), LocalFile(path))["x"], x.numpy())


def test_numbers_that_numpy_lacks_are_refused_with_the_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)  # as where it is not installed
    data = safetensors.torch.save({"w": torch.ones(2, dtype=torch.bfloat16)})
    error = refusal(READER, MemoryFile(data, "x.safetensors"))
    assert "“w” is bfloat16" in error.message
    assert "float16 or float32" in error.hint


def test_numbers_that_ml_dtypes_brings_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    brought = types.SimpleNamespace(bfloat16=np.dtype("V2"))
    monkeypatch.setitem(sys.modules, "ml_dtypes", brought)  # type: ignore[arg-type]
    x = torch.tensor([1.5, -2.0, 3.25], dtype=torch.bfloat16)
    found = everything(READER, MemoryFile(safetensors.torch.save({"w": x}), "x.safetensors"))["w"]
    assert found.dtype == np.dtype("V2")
    assert found.tobytes() == x.view(torch.int16).numpy().tobytes()


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]},
        {"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]},
        {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]},
        {"dtype": "F32", "shape": [2], "data_offsets": [0.0, 8.0]},
        {"dtype": "F32", "shape": [2], "data_offsets": [0, float("nan")]},
        {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]},
        {"dtype": "F32", "shape": [10**12, 0], "data_offsets": [0, 0]},
        {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": ["2"], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": 2, "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [1] * 99, "data_offsets": [0, 4]},
        {"dtype": ["F32"], "shape": [2], "data_offsets": [0, 8]},
        {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]},
        {"dtype": "F32", "shape": [2]},
        [1, 2],
        None,
    ],
)
def test_a_header_that_lies_is_refused_and_nothing_is_allocated(entry: Any) -> None:
    tracemalloc.start()
    assert "“x”" in refusal(READER, headed({"x": entry}, bytes(8))).message
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize(
    "header", [b"", b"{", b"[]", b"[" * 9000, b'{"x": ' * 9000, b"\xff\xfe", b"1" * 9000, b"{}"]
)
def test_other_headers_are_refused(header: bytes) -> None:
    refusal(READER, headed(header))


@pytest.mark.parametrize("data", [b"x", bytes(8), b"\xff" * 64, (2**40).to_bytes(8, "little") + b"{}"])
def test_other_files_are_refused(data: bytes) -> None:
    tracemalloc.start()
    refusal(READER, MemoryFile(data, "x.safetensors"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def test_a_truncated_file_is_refused() -> None:
    data = saved({"x": np.arange(40.0), "y": np.arange(40)})._data
    for length in range(1, len(data), 23):
        refusal(READER, MemoryFile(data[:length], "x.safetensors"))


def test_changed_bytes_give_arrays_or_a_refusal() -> None:
    arrays = {"x": np.arange(30.0).reshape(10, 3), "x.ends": np.array([3, 3, 10]), "y": np.arange(3)}
    check_fuzz(READER, saved(arrays)._data, "x.safetensors", 300)

"""What `torch.save` wrote comes back as PyTorch's own values; a file runs no code and claims no memory."""

from __future__ import annotations

import io
import os
import pickle
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from caudal.data.byte_file import LocalFile
from caudal.data.sample_files import SAMPLE_READERS
from caudal.data.sample_files.torch_file import TorchReader
from tests.data.sample_files.all_alike import (
    MemoryFile,
    check_fuzz,
    everything,
    in_threads,
    refusal,
    same,
)

READER = TorchReader()
SLOW = [HealthCheck.too_slow]  # a busy machine is no fault
DTYPES = st.sampled_from(["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16"])


def saved(content: Any, **options: Any) -> MemoryFile:
    stream = io.BytesIO()
    torch.save(content, stream, **options)
    return MemoryFile(stream.getvalue(), "x.pt")


def rezipped(file: MemoryFile, change: Any, method: int = zipfile.ZIP_STORED) -> MemoryFile:
    """The archive written anew, its records changed by `change(name, data)`; `None` drops one."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(file._data)) as old, zipfile.ZipFile(stream, "w", method) as new:
        for record in old.infolist():
            data = change(record.filename, old.read(record))
            if data is not None:
                new.writestr(record.filename, data)
    return MemoryFile(stream.getvalue(), "x.pt")


@st.composite
def tensors(draw: Any, samples: int | None = None) -> torch.Tensor:
    """Plain, cut out of larger ones, transposed, expanded; sometimes without an entry."""
    tail = draw(hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=4))
    shape = tail if samples is None else (samples, *tail)
    kind = draw(st.sampled_from(["plain", "cut", "swapped", "every other"]))
    if kind == "cut":
        larger = torch.from_numpy(draw(hnp.arrays(draw(DTYPES), [n + 2 for n in shape])))
        return larger[tuple(slice(1, n + 1) for n in shape)]
    if kind == "swapped":
        x = torch.from_numpy(np.asarray(draw(hnp.arrays(draw(DTYPES), shape[::-1]))))
        return x.permute(tuple(range(len(shape)))[::-1])
    if kind == "every other" and shape:
        return torch.from_numpy(draw(hnp.arrays(draw(DTYPES), (shape[0] * 2, *shape[1:]))))[::2]
    return torch.from_numpy(np.asarray(draw(hnp.arrays(draw(DTYPES), shape))))


@settings(max_examples=70, deadline=None, suppress_health_check=SLOW)
@given(
    content=st.dictionaries(
        st.text("xyzñ. ", min_size=1, max_size=4), tensors(samples=4), min_size=1, max_size=4
    )
)
def test_a_dict_of_tensors_comes_back(content: dict[str, torch.Tensor]) -> None:
    content = {name: x for name, x in content.items() if not name.endswith(".ends")} or {"x": torch.ones(4)}
    file = saved(content)
    loaded = torch.load(io.BytesIO(file._data), weights_only=True)
    found = everything(READER, file)
    assert list(found) == list(content)
    assert all(same(found[name], loaded[name].numpy()) for name in content)
    part = READER.part(file, whole=False)
    assert part.samples == 4
    assert (part.places is not None) == all(x.is_contiguous() for x in loaded.values())


@settings(max_examples=40, deadline=None, suppress_health_check=SLOW)
@given(x=tensors(), whole=st.booleans())
def test_a_tensor_alone_is_the_field_x(x: torch.Tensor, whole: bool) -> None:
    file = saved(x)
    if not x.ndim and not whole:
        refusal(READER, file)
        return
    found = everything(READER, file, whole)["x"]
    assert same(found, x.numpy() if x.ndim else x.numpy().reshape(1))


def test_tensors_that_share_their_storage_come_from_the_same_bytes() -> None:
    base = torch.arange(24.0).reshape(6, 4)
    file = saved({"a": base, "b": base[2:5], "c": base.view(-1)[1:9]})
    part = READER.part(file, whole=True)
    assert part.places is not None
    places = {name: int(place[0]) for name, place in part.places.items()}
    assert (places["b"] - places["a"], places["c"] - places["a"]) == (32, 4)
    assert places["a"] % 64 == 0
    assert same(everything(READER, file, whole=True)["b"], base[2:5].numpy())


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ((torch.ones(3), torch.zeros(3)), ["x", "y"]),
        ([torch.ones(3), torch.zeros(3, 2), torch.zeros(3)], ["0", "1", "2"]),
        ((torch.ones(3),), ["x"]),
        (OrderedDict(w=torch.nn.Parameter(torch.ones(3))), ["w"]),
        ({1: torch.ones(3)}, ["1"]),
    ],
)
def test_sequences_of_tensors_get_names(content: Any, names: list[str]) -> None:
    assert list(everything(READER, saved(content))) == names


def test_numbers_beside_a_tensor_belong_to_a_file_that_is_one_sample() -> None:
    file = saved({"x": torch.ones(7, 2), "label": 3, "rate": 0.5, "sick": True, "by": "me"})
    found = everything(READER, file, whole=True)
    assert (found["label"].tolist(), found["rate"].tolist(), found["sick"].tolist()) == ([3], [0.5], [True])
    assert [str(found[name].dtype) for name in ("label", "rate", "sick")] == ["int64", "float64", "bool"]
    part = READER.part(file, whole=False)
    assert [field.name for field in part.fields] == ["x"]
    assert len(part.left_out) == 4


@settings(max_examples=40, deadline=None, suppress_health_check=SLOW)
@given(
    lengths=st.lists(st.integers(0, 5), min_size=1, max_size=6),
    as_tuples=st.booleans(),
    label=st.sampled_from(["tensor", "number", "none"]),
    swapped=st.booleans(),
)
def test_a_list_of_samples_comes_back_sample_by_sample(
    lengths: list[int], as_tuples: bool, label: str, swapped: bool
) -> None:
    xs = [torch.rand(3, n).t() if swapped else torch.rand(n, 3) for n in lengths]
    samples: list[Any] = [{"x": x} for x in xs]
    if label != "none":
        for i, sample in enumerate(samples):
            sample["y"] = torch.tensor(i) if label == "tensor" else i
    file = saved([tuple(sample.values()) for sample in samples] if as_tuples else samples)
    part = READER.part(file, whole=False)
    assert part.samples == len(lengths)
    ragged = len(set(lengths)) > 1
    assert part.fields[0].shape == ((None, 3) if ragged else (lengths[0], 3))
    found = everything(READER, file)
    joined = torch.cat(xs).numpy() if ragged else torch.stack(xs).numpy()
    assert same(found["x"], joined)
    if label != "none":
        assert same(found["y"], np.arange(len(lengths)))
    raw = label != "number" and all(x.is_contiguous() for x in xs)
    assert (part.places is not None) == raw
    assert (READER.part(file, whole=True).samples, READER.part(file, whole=True).rows.keys()) == (
        part.samples,
        part.rows.keys(),
    )


def test_samples_of_a_list_must_be_alike() -> None:
    one = torch.ones(3, 2)
    assert "“y”" not in refusal(READER, saved([{"x": one}, {"x": one, "y": one}])).message
    assert "float32, float64" in refusal(READER, saved([{"x": one}, {"x": one.double()}])).message
    assert "first axis" in refusal(READER, saved([{"x": one}, {"x": torch.ones(3, 5)}])).message
    assert "first axis" in refusal(READER, saved([{"x": one}, {"x": torch.ones(3)}])).message
    refusal(READER, saved([{"a": "text"}, {"a": "text"}]))


def test_samples_of_different_length_lie_joined_beside_their_ends() -> None:
    content = {"x": torch.rand(6, 2), "x.ends": torch.tensor([1, 1, 6]), "y": torch.arange(3)}
    file = saved(content)
    part = READER.part(file, whole=False)
    assert part.rows["x"].tolist() == [1, 0, 5]
    assert part.places is not None
    assert same(everything(READER, file)["x"], content["x"].numpy())
    refusal(READER, saved({**content, "x.ends": torch.tensor([1, 0, 6])}))
    swapped = saved({**content, "x": torch.rand(2, 6).t(), "x.ends": torch.tensor([1, 9, 1, 9, 6, 9])[::2]})
    assert READER.part(swapped, whole=False).rows["x"].tolist() == [1, 0, 5]


def test_a_local_file_is_read_like_any_other_by_many_threads(tmp_path: Path) -> None:
    path, x = tmp_path / "ñ.pth", torch.rand(4, 30).t()
    torch.save({"x": x, "y": torch.arange(30)}, path)
    file, reader = LocalFile(path), SAMPLE_READERS.get("torch")()

    def work() -> None:
        assert same(everything(reader, file)["x"], x.numpy())

    in_threads(work)


def test_no_value_is_read_to_index_a_file() -> None:
    file = saved({"x": torch.zeros(1000, 1000), "y": torch.zeros(1000)})
    READER.part(file, whole=False)
    assert file.largest_read_bytes < 100_000
    assert file.reads * file.largest_read_bytes < 1_000_000


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (os.mkdir, (self.path,))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_code_in_a_file_is_refused_and_not_run(tmp_path: Path) -> None:
    boom = tmp_path / "boom"
    error = refusal(READER, saved({"x": torch.ones(1), "bomb": Bomb(boom)}))
    assert "posix.mkdir" in error.message
    for content in (Bomb(boom), [Bomb(boom)]):
        refusal(READER, saved(content))
    refusal(READER, rezipped(saved(torch.ones(1)), lambda name, data: _bomb(name, data, boom)))
    assert not boom.exists()


def _bomb(name: str, data: bytes, boom: Path) -> bytes:
    return pickle.dumps(Bomb(boom)) if name.endswith("data.pkl") else data


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("text", "it holds str"),
        ([], "it holds list"),
        ({}, "no array"),
        ({"a": "b"}, "no array"),
        ([1, 2], "first axis"),
        ({"x": np.ones(3)}, "numpy"),
        ({"x": torch.eye(3).to_sparse()}, "plain tensor"),
        ({"x": torch.ones(3, dtype=torch.complex64).conj()}, "plain tensor"),
        ({"x": torch.ones(3, device="meta")}, "without its values"),
        ({"x": torch.ones(3, dtype=torch.bfloat16)}, "bfloat16"),
        ({"x": torch.ones(1).expand(1_000_000)}, "claims"),
        ({"x": torch.ones(5), "y": torch.ones(4)}, "x 5, y 4"),
        ({"train": {"x": torch.ones(3)}}, "no array"),
    ],
)
def test_what_is_no_set_of_plain_tensors_is_refused(
    content: Any, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)  # as where it is not installed
    assert why in refusal(READER, saved(content)).message


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_other_kinds_of_file_are_refused() -> None:
    refusal(READER, saved(torch.ones(3), _use_new_zipfile_serialization=False))
    stream = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), stream)
    assert "not of tensors" in refusal(READER, MemoryFile(stream.getvalue(), "x.pt")).message
    for data in (b"x", b"PK\x05\x06" + bytes(18), bytes(500)):
        refusal(READER, MemoryFile(data, "x.pt"))
    plain = saved({"x": torch.rand(50)})
    refusal(READER, rezipped(plain, lambda name, data: data, zipfile.ZIP_DEFLATED))
    refusal(READER, rezipped(plain, lambda name, data: b"big" if name.endswith("byteorder") else data))


def test_an_archive_written_by_another_zip_tool_is_never_misread() -> None:
    x = torch.rand(50)
    # The version says that records lie as torch.save puts them, which another tool does not.
    file = rezipped(saved({"y": torch.rand(50, 3), "x": x}), lambda name, data: data)
    assert "is not where" in refusal(READER, file).message
    unversioned = rezipped(file, lambda name, data: None if name.endswith(".format_version") else data)
    assert same(everything(READER, unversioned)["x"], x.numpy())


def test_a_tensor_that_claims_more_than_its_record_has_is_refused() -> None:
    file = saved({"x": torch.arange(500.0)})
    short = rezipped(file, lambda name, data: data[:80] if name.endswith("data/0") else data)
    assert "claims" in refusal(READER, short).message
    # The same with the size of the tensor and of its storage changed in the pickle: 500 → 0x7FFFFFF4.
    pickled = rezipped(
        saved({"x": torch.arange(500.0)}),
        lambda name, data: (
            data.replace(b"M\xf4\x01", b"J\xf4\xff\xff\x7f") if name.endswith("data.pkl") else data
        ),
    )
    refusal(READER, pickled)


def test_a_truncated_file_is_refused() -> None:
    data = saved({"x": torch.rand(40, 3), "y": torch.rand(40)})._data
    for length in range(1, len(data), 97):
        refusal(READER, MemoryFile(data[:length], "x.pt"))


@pytest.mark.parametrize("kind", ["raw", "listed"])
def test_changed_bytes_give_arrays_or_a_refusal(kind: str) -> None:
    contents: dict[str, Any] = {
        "raw": {"x": torch.rand(9, 3), "x.ends": torch.tensor([3, 3, 9]), "y": torch.arange(3)},
        "listed": [(torch.rand(n, 2).t(), n) for n in (1, 2, 2)],
    }
    check_fuzz(READER, saved(contents[kind])._data, "x.pt", 150)

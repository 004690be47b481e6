"""Windows cover every step, lie where their sequences lie, and cost no byte but those that are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

import caudal
from caudal.core.errors import BadValues, DataError, UsageError
from caudal.core.units import MIB, Bytes
from caudal.data.open_parts import OpenParts
from caudal.data.quarantine import Quarantine
from caudal.data.sample_index import index_samples
from caudal.data.sample_set import SampleSet
from caudal.data.sample_stream import SampleStream
from caudal.data.sample_windows import label_windows, windows
from caudal.data.steps import Cut, Rank
from caudal.data.stream_size import StreamSize
from caudal.runs.spec import RunSpec
from caudal.runs.work.sets import Sets

pytestmark = pytest.mark.usefixtures("warm")
DRAW = np.random.default_rng(0)


def recordings(path: Path, lengths: list[int], width: int = 3, **more: Any) -> np.ndarray[Any, Any]:
    """One file of sequences behind each other; every row says where it is."""
    total = sum(lengths)
    rows = np.arange(total * width, dtype=np.float32).reshape(total, width)
    steps = np.arange(total, dtype=np.int64)
    save_file(
        {"x": rows, "x.ends": np.cumsum(lengths), "t": steps, "t.ends": np.cumsum(lengths), **more}, path
    )
    return rows


def streamed(samples: SampleSet, shuffle: bool = False) -> dict[int, dict[str, Any]]:
    ram, quarantine = Bytes(64 * MIB), Quarantine(samples, 0)
    size = StreamSize.fit(samples, ram, 5, 2, shuffle, lambda: 1.0)
    stream = SampleStream(
        samples,
        size,
        Cut(5),
        seed=3,
        shuffle=shuffle,
        epochs=1,
        threads=2,
        rank=Rank(),
        quarantine=quarantine,
    )
    found = {}
    for batch in stream:
        for k, number in enumerate(batch.samples.tolist()):
            found[number] = {name: np.array(batch.numpy(name)[k]) for name in batch}
    stream.close()
    return found


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    length=st.integers(1, 20),
    data=st.data(),
    width=st.sampled_from([3, 6000]),
    shuffle=st.booleans(),
)
def test_every_step_is_in_a_window_and_each_holds_the_rows_of_its_place(
    lengths: list[int], length: int, data: st.DataObject, width: int, shuffle: bool, tmp_path: Path
) -> None:
    stride = data.draw(st.integers(1, length))
    x = recordings(tmp_path / "a.safetensors", lengths, width, y=np.arange(len(lengths)))
    whole = index_samples(str(tmp_path / "a.safetensors"), "rows")
    cut, of = windows(whole, "x", length, stride)
    found = streamed(cut, shuffle)
    assert sorted(found) == list(range(len(cut)))
    seen = [set[int]() for _ in lengths]
    begins = np.cumsum(lengths) - lengths
    for number, one in found.items():
        recording = int(of[number])
        assert len(one["x"]) == min(length, lengths[recording])
        np.testing.assert_array_equal(one["x"], x[one["t"]])
        assert (np.diff(one["t"]) == 1).all()
        assert one["y"] == recording
        seen[recording] |= set((one["t"] - begins[recording]).tolist())
    assert seen == [set(range(n)) for n in lengths]


def test_windows_are_neither_copied_nor_read_twice_with_a_block(tmp_path: Path) -> None:
    recordings(tmp_path / "a.safetensors", [4000], y=np.zeros(1, np.int64))
    whole = index_samples(str(tmp_path / "a.safetensors"), "rows")
    before = (tmp_path / "a.safetensors").stat().st_size
    cut, _of = windows(whole, "x", 100, 1)
    assert len(cut) == 3901
    held = sum(a.nbytes for a in (*cut.columns.row_ends.values(), *(cut.columns.places or {}).values()))
    assert held <= 4 * 8 * len(cut)  # two fields, where each begins and ends
    parts = OpenParts(cut)
    last = int(cut.columns.block_ends[0])
    assert last > 20
    parts.read(0, last, {f.name: np.empty(cut.shape(f, 0, last), f.dtype) for f in cut.stored})
    parts.close()
    assert parts.bytes_read == (100 + last - 1) * (3 * 4 + 8)  # each row of “x” and “t” once
    assert [path.stat().st_size for path in tmp_path.iterdir()] == [before]


@pytest.mark.parametrize("by", ["last", "majority"])
def test_a_window_has_the_label_of_its_last_step_or_of_most(tmp_path: Path, by: Any) -> None:
    lengths = [17, 5, 30]
    labels = DRAW.integers(-1, 3, sum(lengths))
    recordings(tmp_path / "a.safetensors", lengths, y=labels, **{"y.ends": np.cumsum(lengths)})
    cut, _of = windows(index_samples(str(tmp_path / "a.safetensors"), "rows"), "x", 8, 3)
    found = streamed(label_windows(cut, "y", by))
    for one in found.values():
        mine = labels[one["t"]]
        if by == "last":
            assert one["y"] == mine[-1]
            continue
        known = mine[mine >= 0]
        assert one["y"] == (np.bincount(known).argmax() if len(known) else -1)


def spec(data: Path, **more: Any) -> RunSpec:
    settings_ = {"images": [str(data)], "window": 10, "stride": 4, **more}
    return RunSpec.make({"task": "sequence", "data": settings_, "training": {"batch": 4}})


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lengths=st.lists(st.integers(1, 60), min_size=12, max_size=30), seed=st.integers(0, 9))
def test_windows_of_one_recording_are_on_one_side(lengths: list[int], seed: int, tmp_path: Path) -> None:
    recordings(tmp_path / "a.safetensors", lengths, y=np.arange(len(lengths)) % 2)
    made = spec(tmp_path / "a.safetensors").model_copy(update={"seed": seed})
    work = Sets.open(made)
    assert work.opened.groups is not None
    split = work.split
    sides = [set(work.opened.groups[part].tolist()) for part in (split.train, split.validation, split.test)]
    assert len(set().union(*sides)) == sum(map(len, sides))
    assert any("cut into" in text for text in work.warnings)


def test_what_a_table_says_of_a_recording_it_says_of_its_windows(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    parts = ["train"] * 10 + ["val", "test"]
    rows = ["file,label,split,who"]
    for k in range(12):
        np.save(folder / f"{k:02d}.npy", np.full((25 + k, 2), k, np.float32))
        rows += [f"{k:02d},{k % 2},{parts[k]},p{k % 3}"] if k != 5 else []
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(rows))
    opened = Sets.open(spec(folder, labels=str(table)))
    of, members = opened.opened.groups, opened.opened.members
    assert of is not None
    assert set(of[members].tolist()) == set(range(12)) - {5}
    assert set(of[opened.split.test].tolist()) == {11}
    assert [int(text[1:]) for text in opened.opened.columns["who"]] == (of[members] % 3).tolist()
    assert opened.class_of is not None
    assert opened.class_of[members].tolist() == (of[members] % 2).tolist()


def test_what_cannot_be_cut_is_refused(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros((12, 40, 2)), y=np.arange(12) % 2)
    with pytest.raises(DataError, match="No windows can be cut"):
        Sets.open(spec(tmp_path / "a.npz"))
    np.savez(tmp_path / "b.npz", a=np.zeros((12, 40, 2)), b=np.zeros((12, 40, 2)), y=np.arange(12) % 2)
    with pytest.raises(UsageError, match="no field of sequences"):
        Sets.open(spec(tmp_path / "b.npz"))
    lengths = [30] * 12
    recordings(
        tmp_path / "c.safetensors", lengths, y=np.zeros(360, np.float32), **{"y.ends": np.cumsum(lengths)}
    )
    with pytest.raises(BadValues, match="most"):
        Sets.open(spec(tmp_path / "c.safetensors", window_label="majority"))


def test_a_run_learns_from_windows_and_predicts_each(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    for kind in range(2):
        (folder / str(kind)).mkdir(parents=True)
        for k in range(8):
            x = DRAW.normal(3 * kind, 1, (40 + k, 2)).astype(np.float32)
            np.save(folder / str(kind) / f"{k}.npy", x)
    made = spec(folder).model_copy(update={"device": "cpu"})
    small = {"model": {"name": "recurrent", "config": {"width": 4}}, "training": {"steps": 4, "batch": 8}}
    made = RunSpec.make({**made.model_dump(exclude_unset=True), **small})
    result = caudal.train(made, out=tmp_path / "run", ram="1GiB")
    assert result.metrics is not None
    caudal.predict(tmp_path / "run", folder, out=tmp_path / "said.csv", ram="1GiB")
    rows = (tmp_path / "said.csv").read_text().splitlines()[1:]
    assert len(rows) == 2 * sum(1 + -(-(30 + k) // 4) for k in range(8))

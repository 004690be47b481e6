"""What cannot be read is not scored, has no row, and stands for no other; whoever asked is told its name."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

import caudal
from caudal.core.errors import UnreadableFile
from caudal.data.sample_index import index_samples
from caudal.runs.spec import RunSpec
from caudal.runs.work.set_stream import scoring_batches

DRAW = np.random.default_rng(0)


def files(folder: Path, count: int, rows: int, ragged: bool, packed: bool = True) -> Path:
    folder.mkdir()
    for k in range(count):
        length = rows + (int(DRAW.integers(1, 5)) if ragged else 0)
        x = DRAW.normal(k % 2, 1, (length, 3)).astype(np.float32)
        (np.savez_compressed if packed else np.savez)(folder / f"{k:03d}.npz", x=x, y=np.array(k % 2))
    return folder


def break_body(path: Path, at: int = 5000) -> None:
    data = bytearray(path.read_bytes())
    data[at : at + 40] = bytes(40)
    path.write_bytes(data)


@pytest.mark.parametrize("rows", [600, 6000])  # in blocks, and one by one
@pytest.mark.parametrize("ragged", [False, True])
def test_scored_is_each_sample_that_can_be_read_once_and_no_other(
    tmp_path: Path, rows: int, ragged: bool
) -> None:
    folder = files(tmp_path / "set", 130, rows, ragged)
    break_body(folder / "007.npz")
    samples = index_samples(str(folder), "file")
    with scoring_batches(samples, 8, 2) as stream:
        seen = [int(k) for batch in stream for k in batch.samples]
    assert seen == [k for k in range(130) if k != 7]
    (words,) = samples.broken.words()
    assert "007.npz" in words
    with scoring_batches(samples.only(np.array([7])), 1, 2) as stream, pytest.raises(UnreadableFile):
        next(stream)


def test_what_is_left_of_a_batch_still_is_what_lies_in_its_files(tmp_path: Path) -> None:
    folder = files(tmp_path / "set", 9, 60_000, True, packed=False)  # so large that it is taken as it lies
    samples = index_samples(str(folder), "file")
    (folder / "004.npz").write_bytes(b"")
    with scoring_batches(samples, 9, 2) as stream:
        for batch in stream:
            for k, x in zip(batch.samples.tolist(), batch.numpy("x"), strict=True):
                with np.load(folder / f"{k:03d}.npz") as file:
                    np.testing.assert_array_equal(x, file["x"])


def test_a_run_tells_what_it_could_not_read_and_predicts_no_row_for_it(tmp_path: Path) -> None:
    folder = files(tmp_path / "set", 210, 600, True)
    spec = RunSpec.make(
        {
            "task": "sequence",
            "data": {"images": [str(folder)]},
            "model": {"name": "recurrent", "config": {"width": 4}},
            "training": {"steps": 4, "batch": 8, "average": 0, "validate_every": 4},
            "device": "cpu",
        }
    )
    break_body(folder / "007.npz")
    (folder / "019.npz").write_bytes((folder / "019.npz").read_bytes()[:-30])
    limit = {"ram": "1GiB"}
    result = caudal.train(spec, out=tmp_path / "run", **limit)
    for name in ("007.npz", "019.npz"):
        assert any(name in text for text in result.warnings)
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    told = [Path(event["file"]).name for event in events if event["kind"] == "sample_broken"]
    assert sorted(told) == ["007.npz", "019.npz"]
    said = caudal.predict(tmp_path / "run", folder, out=tmp_path / "said.csv", **limit)
    with (tmp_path / "said.csv").open() as file:
        names = [Path(row["file"]).stem for row in csv.DictReader(file)]
    assert names == [f"{k:03d}" for k in range(210) if k not in (7, 19)]
    for name in ("007.npz", "019.npz"):
        assert any(name in text for text in said.warnings)

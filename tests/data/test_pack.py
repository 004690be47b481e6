"""A pack holds what the set held, there whole or not at all, and says when its bytes have changed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import caudal
from caudal.core.errors import DataError, DiskFull, UsageError


def make_set(folder: Path, kind: str) -> Path:
    """Forty files of samples: large and ragged, small and ragged, or many small ones in each file."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(1)
    for k in range(40):
        path = folder / f"ü {k:02}.npz"
        if kind == "rows":
            x = draw.integers(0, 99, (50, 8)).astype(np.int16)
            np.savez_compressed(path, x=x, y=np.arange(50 * k, 50 * k + 50))
        else:
            rows = int(draw.integers(300, 900)) if kind == "large" else int(draw.integers(0, 20))
            np.savez_compressed(path, x=draw.random((rows, 32), np.float32), y=np.int64(k))
    return folder


def content(path: Path, arrangement: str = "auto") -> dict[int, Any]:
    """Every sample by its `y`."""
    found = {}
    for batch in caudal.stream(path, 7, ram="24MiB", samples=arrangement):  # type: ignore[arg-type]
        x, y = batch.numpy("x"), batch.numpy("y")
        found |= {int(y[i]): x[i].copy() for i in range(batch.size)}
    return found


@pytest.mark.parametrize("kind", ["large", "small", "rows"])
@pytest.mark.parametrize("shard", ["200KiB", "256MiB"])
def test_a_pack_gives_the_same_samples(kind: str, shard: str, tmp_path: Path) -> None:
    source = make_set(tmp_path / "source", kind)
    arrangement = "rows" if kind == "rows" else "file"
    done = caudal.pack(source, out=tmp_path / "pack", samples=arrangement, shard_bytes=shard, ram="64MiB")  # type: ignore[arg-type]
    before, after = content(source, arrangement), content(tmp_path / "pack")
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[k], after[k]) and before[k].dtype == after[k].dtype for k in before)
    schema = json.loads((tmp_path / "pack" / "pack.json").read_text())
    assert schema["samples"] == len(before) == done.metrics["samples"]  # type: ignore[index]
    assert sum(schema["shards"].values()) == len(before)
    assert sum(p.stat().st_size for p in (tmp_path / "pack").glob("*.safetensors")) == schema["bytes"]


def test_shards_are_plain_safetensors_files(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    source = make_set(tmp_path / "source", "rows")
    caudal.pack(source, out=tmp_path / "pack", samples="rows")
    loaded = load_file(tmp_path / "pack" / "00000.safetensors")
    assert sorted(loaded["y"].tolist()) == list(range(2000))


@pytest.mark.parametrize("kind", ["large", "rows"])
def test_a_changed_byte_is_found_when_it_is_read(kind: str, tmp_path: Path) -> None:
    source = make_set(tmp_path / "source", kind)
    caudal.pack(source, out=tmp_path / "pack", samples="rows" if kind == "rows" else "file")
    shard = tmp_path / "pack" / "00000.safetensors"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    stream = caudal.stream(tmp_path / "pack", 7, ram="24MiB", broken_limit=1.0)
    try:
        for _batch in stream:
            pass
    except DataError:
        assert kind == "rows"  # the only block there is: nothing can stand in for it
    assert len(stream.broken) == 1
    assert "checksum" in stream.broken[0].reason


def test_a_killed_pack_is_refused_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    source, out = make_set(tmp_path / "source", "large"), tmp_path / "pack"
    code = (
        "import sys, os, pathlib, signal, caudal\n"
        "def hear(event):\n"
        "    shards = list(pathlib.Path(sys.argv[2]).glob('*.safetensors'))\n"
        "    parts = list(pathlib.Path(sys.argv[2]).glob('*.part'))\n"
        "    if len(shards) == 3 and parts: os.kill(os.getpid(), signal.SIGKILL)\n"
        "caudal.pack(sys.argv[1], out=sys.argv[2], samples='file', shard_bytes='200KiB', listeners=[hear])\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(source), str(out)], check=False)
    assert ended.returncode == -signal.SIGKILL
    finished = {p.name: p.stat().st_mtime_ns for p in out.glob("*.safetensors")}
    assert finished
    with pytest.raises(DataError, match="not finished"):
        caudal.stream(out)
    done = caudal.pack(source, out=out, samples="file", shard_bytes="200KiB")
    assert done.metrics["kept_shards"] == len(finished)  # type: ignore[index]
    assert {name: (out / name).stat().st_mtime_ns for name in finished} == finished
    assert content(out).keys() == content(source, "file").keys()
    assert not list(out.glob("*.part"))


def test_a_full_disk_leaves_no_half_shard_and_keeps_the_whole_ones(small_disk: Path, tmp_path: Path) -> None:
    source = make_set(tmp_path / "source", "large")  # 3 MB once unpacked
    (small_disk / "ballast").write_bytes(bytes(1 << 20))
    with pytest.raises(DiskFull):
        caudal.pack(source, out=small_disk / "pack", samples="file", shard_bytes="500KiB")
    kept = sorted(p.name for p in (small_disk / "pack").iterdir())
    assert kept == ["00000.safetensors", "00001.safetensors", "00002.safetensors", "pack.unfinished"]


def test_a_folder_with_other_things_is_not_touched(tmp_path: Path) -> None:
    source = make_set(tmp_path / "source", "rows")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(UsageError, match="not empty"):
        caudal.pack(source, out=tmp_path / "mine", samples="rows")
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_an_estimate_writes_nothing_and_says_what_it_would_bring(tmp_path: Path) -> None:
    source = make_set(tmp_path / "source", "large")
    found = caudal.pack(source, out=tmp_path / "pack", samples="file", estimate=True)
    assert {p.name for p in tmp_path.iterdir()} == {"source"}
    metrics = found.metrics or {}
    assert metrics["pack_bytes"] == sum(one.nbytes + 8 for one in content(source, "file").values())
    assert metrics["gain"] == pytest.approx(
        (metrics["samples_per_second_packed"] or 0) / (metrics["samples_per_second_now"] or 1)
    )

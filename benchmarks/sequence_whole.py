"""A whole set of `.pt` files as users have them, learned for an epoch by `caudal train` in a group of 2 GiB.

`CAUDAL_WHOLE_GB` says how large it is (60 where nothing is said). At most 6 GB of it are distinct: the
files after them are hard links under names of their own. Each is opened and read as any other; before the
epoch all are dropped from the page cache, and 2 GiB are too few to keep them in it.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.children import GIB, caudal, error_of, mib, module
from benchmarks.rows import Row
from benchmarks.sequence_move import BATCH, IN_FILE, make

SET_BYTES = int(float(os.environ.get("CAUDAL_WHOLE_GB", "60")) * 1e9)
DISTINCT_BYTES, FILE_BYTES = 6_000_000_000, 10_000_000  # a file has 100 sequences of about 100 steps
LIMIT = 2 * GIB
SHOWN = 64  # batches that are compared when a stream goes on


def make_whole(folder: Path) -> int:
    """The files and their links; how many of them are distinct."""
    files = max(1, SET_BYTES // FILE_BYTES)
    distinct = min(files, DISTINCT_BYTES // FILE_BYTES)
    make(folder, distinct)
    for k in range(distinct, files):
        os.link(folder / f"part{k % distinct:04d}.pt", folder / f"part{k:04d}.pt")
    return distinct


def drop(folder: Path, distinct: int) -> float:
    """Write back and forget all pages of the set; the bytes a second of one reader of some files."""
    os.sync()
    files = [folder / f"part{k:04d}.pt" for k in range(distinct)]
    for file in files:
        _forget(file)
    buffer, read, began = bytearray(4 << 20), 0, time.perf_counter()
    for file in files[:: max(1, distinct // 100)]:
        with file.open("rb", buffering=0) as stream:
            while count := stream.readinto(buffer):
                read += count
    seconds = time.perf_counter() - began
    for file in files:
        _forget(file)
    return read / seconds


def _forget(file: Path) -> None:
    with file.open("rb") as stream:
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def row() -> Row:
    """What the stream shows of the set, then an epoch of it."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("CAUDAL_WHOLE_DIR")) as name:
        folder = Path(name) / "set"
        distinct = make_whole(folder)
        files = len(list(folder.iterdir()))
        set_bytes = sum(file.stat().st_size for file in folder.iterdir())
        disk = drop(folder, distinct)
        shown = module("sequence_whole", LIMIT, str(folder))
        drop(folder, distinct)
        steps = files * IN_FILE * 4 // 5 // BATCH
        spec = Path(name) / "spec.toml"
        spec.write_text(
            f'task = "sequence"\nram = "2GiB"\n[data]\nimages = ["{folder}"]\n[model]\nname = "recurrent"\n'
            f"[model.config]\nwidth = 8\nbidirectional = false\n[training]\nsteps = {steps}\n"
        )
        result, ended = caudal(LIMIT, "train", spec, "-o", Path(name) / "run")
    peak, predicted = result["peak_bytes"]["ram"], result["predicted_bytes"]["ram"]
    rate = result["samples_per_second"]
    each = set_bytes / (files * IN_FILE)
    exact = shown["samples"] == files * IN_FILE and shown["same"]
    return Row(
        f"{files} .pt files of {IN_FILE} sequences ({set_bytes / 1e9:.0f} GB; {distinct} distinct, the "
        "others hard links to them), LSTM of width 8: one epoch of 4/5 of the samples in a group of 2 GiB",
        "peak ≤ 2 GiB, stall ≤ 2 % unless the disk is the limit; length, split, shuffle and resume are exact",
        exact
        and peak <= LIMIT
        and ended.oom_kills == 0
        and (result["stall"] <= 0.02 or rate * each >= 0.98 * disk),
        [
            ("peak, predicted, kills", f"{mib(peak)}, {mib(predicted)} ({error_of(predicted, peak)}), "
             f"{ended.oom_kills}"),
            ("its time, steps, samples/s, stall", f"{result['seconds']:.0f} s, {steps}, {rate:.0f}, "
             f"{result['stall']:.1%}"),
            ("bytes read a second; one reader alone", f"{rate * each / 1e6:.0f} MB/s; {disk / 1e6:.0f} MB/s"),
            ("len(): samples, batches", f"{shown['samples']}, {shown['batches']}"),
            ("whole-set shuffle: files in the first 64 batches of 32", f"{shown['files']} of {files}"),
            (f"{SHOWN} batches after a resume", "the same" if shown["same"] else "others"),
            ("first batch after", f"{shown['first_seconds']:.1f} s"),
        ],
    )  # fmt: skip


def show(folder: Path) -> dict[str, Any]:
    """What a stream knows and gives: its length, how far it shuffles, whether it goes on exactly."""
    from caudal.runs.machine import settle

    settle()
    import caudal

    def open_() -> Any:
        return caudal.stream(folder, BATCH, ram="512MiB", epochs=1, threads=2, seed=3)

    began = time.perf_counter()
    stream, first_seconds = open_(), 0.0
    seen, state = [], None
    for number, batch in enumerate(stream):
        first_seconds = first_seconds or time.perf_counter() - began
        seen.append(np.asarray(batch.samples).tolist())
        if number + 1 == SHOWN // 2:
            state = json.loads(json.dumps(stream.state_dict()))
        if number + 1 == SHOWN // 2 + SHOWN:
            break
    batches = len(stream)
    again = open_()
    again.load_state_dict(state)
    after = []
    for batch in again:
        after.append(np.asarray(batch.samples).tolist())
        if len(after) == SHOWN:
            break
    files = {k // IN_FILE for numbers in seen[:SHOWN] for k in numbers}
    return {
        "samples": stream.plan.samples,
        "batches": batches,
        "files": len(files),
        "same": after == seen[SHOWN // 2 :],
        "first_seconds": first_seconds,
    }


if __name__ == "__main__":
    print(json.dumps(show(Path(sys.argv[1]))))

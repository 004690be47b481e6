"""`pack`: a set of samples copied once into files that are read without decoding; or what that brings."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from caudal.core.events import Sink
from caudal.core.messages import _
from caudal.core.seeds import generator
from caudal.core.units import MIB, Bytes
from caudal.data.open_parts import OpenParts
from caudal.data.pack import SHARD_BYTES
from caudal.data.pack import pack as write_pack
from caudal.data.paths import local_path
from caudal.data.sample_index import index_samples
from caudal.data.sample_set import SampleSet
from caudal.runs.machine import processors, ram_budget, settle
from caudal.runs.result import Result
from caudal.runs.samples import Arrangement, open_set
from caudal.runs.telling import Telling

_TRIAL_BYTES = 16 * MIB
WORTHWHILE_GAIN = 1.5


def pack(
    data: str | Path,
    *,
    out: str | Path,
    ram: str | int | None = None,
    samples: Arrangement = "auto",
    resize: tuple[int, int] | None = None,
    scaled: bool = False,
    shard_bytes: str | int = SHARD_BYTES,
    estimate: bool = False,
    listeners: Sequence[Sink] = (),
) -> Result:
    """Write the samples of `data` (as `caudal.stream` takes them) to the folder `out`, one process, in `ram`.

    With `estimate` nothing stays on disk: a small part is packed and read back, and the result says what
    the whole would take and bring (`pack_bytes`, `pack_seconds`, `gain`: samples/s packed ÷ as they are).

    Raises:
        UnreadableFile, DataError: `data` cannot be read.
        UsageError: `out` holds something else.
        DoesNotFit: `ram` is too small.
        DiskFull: no space; what was finished is kept, and the same command goes on.
    """
    settle()
    threads = processors()
    budget = ram_budget(Bytes.parse(ram)) if ram is not None else min(Bytes(512 * MIB), ram_budget(None))
    target = local_path(str(out), must_exist=False)
    with Telling("pack", listeners) as told:
        found = open_set(str(data), samples, resize, scaled, threads, told.scanned)
        told.started("", "cpu", len(found), budget, None)
        if estimate:
            metrics, warnings = _estimate(found, target, threads)
        else:
            done = write_pack(found, target, budget, threads, int(Bytes.parse(shard_bytes)), told.part)
            metrics = {
                "samples": float(done.samples),
                "shards": float(done.shards),
                "kept_shards": float(done.kept),
                "pack_bytes": float(done.nbytes),
            }
            warnings = ()
    result = Result(
        verb="pack",
        output=None if estimate else str(target),
        metrics=metrics,
        budget_bytes={"ram": int(budget), "vram": 0},
        peak_bytes={"ram": int(told.peak), "vram": 0},
        seconds=told.seconds,
        samples_per_second=None if estimate else len(found) / max(told.seconds, 1e-9),
        warnings=(*found.notes, *warnings),
    )
    return told.ended(result)


def _estimate(found: SampleSet, out: Path, threads: int) -> tuple[dict[str, float | None], tuple[str, ...]]:
    """Read some blocks as they are, pack them, read them back: each timed on files that were just seen."""
    blocks = _trial(found)
    count = sum(last - first for first, last in blocks)
    _seconds(found, blocks)  # brings the files into the page cache, as the second reading of a pack will be
    as_is = _seconds(found, blocks) / count
    folder = out.parent if out.parent.is_dir() else Path()
    with tempfile.TemporaryDirectory(dir=folder) as name:
        began = time.perf_counter()
        for k, (first, last) in enumerate(blocks):
            into = {one.name: np.empty(found.shape(one, first, last), one.dtype) for one in found.stored}
            parts = OpenParts(found)
            parts.read(first, last, into)
            parts.close()
            ends = {
                f"{one.name}.ends": np.cumsum(found.rows(one.name, np.arange(first, last)))
                for one in found.stored
                if one.ragged
            }
            np.savez(Path(name) / f"{k:04}.npz", **into, **ends)  # type: ignore[arg-type]
        writing = max(0.0, (time.perf_counter() - began) / count - as_is)
        packed_set = index_samples(name, "rows")
        every = [(packed_set.block_begin(b), int(e)) for b, e in enumerate(packed_set.columns.block_ends)]
        _seconds(packed_set, every)
        packed = _seconds(packed_set, every) / count
    metrics: dict[str, float | None] = {
        "pack_bytes": float(found.total_bytes),
        "pack_seconds": len(found) * (as_is / threads + writing),
        "samples_per_second_now": threads / as_is,
        "samples_per_second_packed": threads / packed,
        "gain": as_is / packed,
    }
    return metrics, tuple(_advice(found, as_is / packed))


def _trial(found: SampleSet) -> list[tuple[int, int]]:
    """A few random blocks, (first, last) each; no more than `_TRIAL_BYTES`, but one."""
    sizes, held = found.block_bytes(), 0
    chosen: list[tuple[int, int]] = []
    for block in generator(0, "pack trial").permutation(len(sizes))[:256].tolist():
        if chosen and held + int(sizes[block]) > _TRIAL_BYTES:
            break
        chosen.append((found.block_begin(block), int(found.columns.block_ends[block])))
        held += int(sizes[block])
    return chosen


def _seconds(found: SampleSet, blocks: list[tuple[int, int]]) -> float:
    """How long one thread takes to read them."""
    parts = OpenParts(found)
    into = [
        {one.name: np.zeros(found.shape(one, first, last), one.dtype) for one in found.stored}
        for first, last in blocks
    ]
    began = time.perf_counter()
    for (first, last), arrays in zip(blocks, into, strict=True):
        parts.read(first, last, arrays)
    seconds = time.perf_counter() - began
    parts.close()
    return seconds


def _advice(found: SampleSet, gain: float) -> list[str]:
    stored = max(1, int(found.columns.sizes.sum()))
    if gain < WORTHWHILE_GAIN:
        text = _("Packing does not pay: reading would be {gain:.1f} times as fast, for {bytes} on disk.")
        return [text.format(gain=gain, bytes=Bytes(found.total_bytes))]
    if found.total_bytes > 4 * stored:
        text = _("The pack would be {ratio:.0f} times as large as the files: a slow disk eats up the gain.")
        return [text.format(ratio=found.total_bytes / stored)]
    return []

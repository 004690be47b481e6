"""Packs: a set copied once into plain safetensors files, from which samples are read without decoding.

A shard holds each field of consecutive samples behind each other, `NAME.ends` for ragged fields, and two
columns of its own: `caudal.blocks` (the number of the first sample after each block) and `caudal.checks`
(the CRC-32 of each field of each block), which are compared when a block is read. Shards are there whole or
not at all; a pack that was interrupted goes on with the first one that is missing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from imagecodecs import deflate_crc32

from caudal.core.errors import UsageError
from caudal.core.files import disk_full, is_disk_full, write_whole
from caudal.core.messages import _
from caudal.core.units import MIB, Bytes
from caudal.data.pack_layout import BLOCKS, CATEGORIES, CHECKS, FIELDS, SCHEMA, UNFINISHED
from caudal.data.quarantine import Quarantine
from caudal.data.sample_files.base import Array, Field, Ints
from caudal.data.sample_set import BLOCK_BYTES, DIRECT_BYTES, SampleSet
from caudal.data.sample_stream import SampleStream
from caudal.data.steps import Cut, Rank
from caudal.data.stream_size import StreamSize

SHARD_BYTES = 256 * MIB
_STEP_BYTES = 4 * MIB
_ALIGNMENT = 64
_NAMES = {
    "bool": "BOOL", "int8": "I8", "int16": "I16", "int32": "I32", "int64": "I64",
    "uint8": "U8", "uint16": "U16", "uint32": "U32", "uint64": "U64",
    "float16": "F16", "float32": "F32", "float64": "F64", "complex64": "C64",
    "bfloat16": "BF16", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
}  # fmt: skip


@dataclass(frozen=True)
class Packed:
    """A finished pack: `samples` in `shards` files of `nbytes` in all; `kept` shards were there already."""

    path: Path
    samples: int
    shards: int
    kept: int
    nbytes: Bytes


def pack(
    samples: SampleSet,
    out: Path,
    ram: Bytes,
    threads: int,
    shard_bytes: int = SHARD_BYTES,
    tick: Callable[[int, int], None] = lambda _done, _total: None,
) -> Packed:
    """Write the set to the folder `out`.

    Raises:
        UsageError: `out` holds something else, or a dtype that safetensors files do not know.
        DataError: a sample cannot be read; what is packed so far is kept.
        DiskFull: no space; finished shards are kept.
        DoesNotFit: not even one sample fits into `ram`.
    """
    _check(samples, out)
    sizes = samples.sample_bytes(np.arange(len(samples)))
    number = (np.cumsum(sizes) - sizes) // max(1, shard_bytes)
    ends = np.append(np.flatnonzero(np.diff(number)) + 1, len(samples))
    names = [f"{k:05}.safetensors" for k in range(len(ends))]
    source = samples.digest
    (out / UNFINISHED).write_text(source)
    done, kept = 0, 0
    for name, last in zip(names, ends.tolist(), strict=True):
        path = out / name
        if path.exists():
            kept += 1
        else:
            # One shard at a time, so that an interrupted run loses one at the most.
            write_whole(path, partial(_write, samples, done, last, ram, threads, tick))
        done = last
        tick(done, len(samples))
    nbytes = sum((out / name).stat().st_size for name in names)
    schema = {
        "version": 1,
        "source": source,
        "samples": len(samples),
        "bytes": nbytes,
        "shards": dict(zip(names, np.diff(ends, prepend=0).tolist(), strict=True)),
        "fields": [
            {"name": f.name, "dtype": str(f.dtype), "shape": f.shape, "categories": f.categories}
            for f in samples.fields
        ],
    }  # fmt: skip
    text = json.dumps(schema, ensure_ascii=False, indent=1)
    write_whole(out / SCHEMA, lambda part: part.write_text(text + "\n", encoding="utf-8"))
    (out / UNFINISHED).unlink()
    return Packed(out, len(samples), len(names), kept, Bytes(nbytes))


def _check(samples: SampleSet, out: Path) -> None:
    """Raise unless `out` is free, or an unfinished pack of the same set."""
    for one in samples.fields:
        if one.dtype.name not in _NAMES:
            raise UsageError(
                _("The field “{field}” is {dtype}, which a pack cannot hold.").format(
                    field=one.name, dtype=one.dtype
                ),
                _("Convert it to a number type that safetensors files know."),
            )
    out.mkdir(parents=True, exist_ok=True)
    there = {path.name for path in out.iterdir()}
    if not there:
        return
    if UNFINISHED not in there:
        raise UsageError(
            _("{path} is not empty.").format(path=out), _("Choose a new folder with -o, or empty that one.")
        )
    if (out / UNFINISHED).read_text() != samples.digest:
        raise UsageError(
            _("{path} holds the unfinished pack of other data.").format(path=out),
            _("Choose a new folder with -o, or empty that one."),
        )


def _write(
    samples: SampleSet,
    first: int,
    last: int,
    ram: Bytes,
    threads: int,
    tick: Callable[[int, int], None],
    path: Path,
) -> None:
    """Write one shard. Its layout is known from the index, so values go to their places as they come."""
    shard = _Shard(samples, first, last)
    mean = max(1, samples.total_bytes // len(samples))
    batch = int(np.clip(_STEP_BYTES // mean, 1, last - first))
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    stream = None
    try:
        os.posix_fallocate(handle, 0, shard.nbytes)
        stream = SampleStream(
            samples,
            StreamSize.fit(samples, ram, batch, threads, False, lambda: 1.0),
            Cut(batch),
            seed=0,
            shuffle=False,
            epochs=1,
            threads=threads,
            rank=Rank(),
            quarantine=Quarantine(samples, 0, limit=-1),
            position=first,
        )
        at = first
        while at < last:
            step = next(stream)
            count = min(step.size, last - at)
            for one in samples.fields:
                found = step.numpy(one.name)
                values = found.values[: int(found.ends[count - 1])] if one.ragged else found[:count]
                shard.put(handle, one, at, values)
            at += count
            tick(at, len(samples))
        shard.finish(handle)
    except OSError as error:
        if is_disk_full(error):
            raise disk_full(path) from error
        raise
    finally:
        if stream is not None:
            stream.close()
        os.close(handle)


class _Shard:
    """Where everything of one shard lies, and its checks as they grow."""

    def __init__(self, samples: SampleSet, first: int, last: int) -> None:
        self._set, self._first, self._last = samples, first, last
        numbers = np.arange(first, last)
        sizes = samples.sample_bytes(numbers)
        if sizes.mean() >= DIRECT_BYTES:
            blocks = np.arange(1, last - first + 1, dtype=np.int64)
        else:
            number = (np.cumsum(sizes) - sizes) // BLOCK_BYTES
            blocks = np.append(np.flatnonzero(np.diff(number)) + 1, last - first).astype(np.int64)
        self._blocks = blocks
        self._checks = np.zeros((len(blocks), len(samples.fields)), np.uint32)
        self._own: dict[str, Array] = {BLOCKS: blocks, CHECKS: self._checks}
        for one in samples.fields:
            if one.ragged:
                self._own[f"{one.name}.ends"] = np.cumsum(samples.rows(one.name, numbers))
        self._header, self._places, self.nbytes = self._lay_out()

    def _lay_out(self) -> tuple[bytes, dict[str, int], int]:
        """Wide elements first, so that each array begins at a multiple of its element's size."""
        entries: list[tuple[str, np.dtype[np.generic], tuple[int, ...]]] = [
            (one.name, one.dtype, self._set.shape(one, self._first, self._last)) for one in self._set.fields
        ]
        entries += [(name, array.dtype, array.shape) for name, array in self._own.items()]
        entries.sort(key=lambda entry: (-entry[1].itemsize, entry[0]))
        header: dict[str, object] = {}
        places, at = {}, 0
        for name, dtype, shape in entries:
            end = at + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
            header[name] = {"dtype": _NAMES[dtype.name], "shape": list(shape), "data_offsets": [at, end]}
            places[name], at = at, end
        categories = {one.name: one.categories for one in self._set.fields if one.categories}
        # The columns of the checks are the fields in this order; in the file they lie by element size.
        header["__metadata__"] = {
            FIELDS: json.dumps([one.name for one in self._set.fields], ensure_ascii=False),
            CATEGORIES: json.dumps(categories, ensure_ascii=False),
        }
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-(len(text) + 8) % _ALIGNMENT)
        begin = len(text) + 8
        return (
            len(text).to_bytes(8, "little") + text,
            {name: begin + place for name, place in places.items()},
            begin + at,
        )

    def put(self, handle: int, one: Field, sample: int, values: Array) -> None:
        """Write the values of consecutive samples from `sample` on."""
        row = self._rows_before(one, sample)
        _write_all(handle, values, self._places[one.name] + row * one.row_bytes)
        k = next(i for i, f in enumerate(self._set.fields) if f.name == one.name)
        done, rows = 0, len(values)
        while done < rows:  # block by block, as far as the values reach
            block = int(np.searchsorted(self._block_rows(one), row + done, "right"))
            until = min(rows, int(self._block_rows(one)[block]) - row)
            piece: Any = np.ascontiguousarray(values[done:until]).reshape(-1).view(np.uint8).data
            self._checks[block, k] = deflate_crc32(piece, int(self._checks[block, k]))
            done = until

    def _rows_before(self, one: Field, sample: int) -> int:
        return self._set.shape(one, self._first, sample)[0] if sample > self._first else 0

    def _block_rows(self, one: Field) -> Ints:
        """The row of the shard after each block."""
        if not one.ragged:
            return self._blocks
        ends: Ints = self._own[f"{one.name}.ends"][self._blocks - 1]
        return ends

    def finish(self, handle: int) -> None:
        """Write what is known only now: the header last, so that no reader takes a part for the whole."""
        for name, array in self._own.items():
            _write_all(handle, array, self._places[name])
        os.pwrite(handle, self._header, 0)


def _write_all(handle: int, values: Array, offset: int) -> None:
    data = np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
    done = 0
    while done < len(data):
        done += os.pwrite(handle, data[done:], offset + done)

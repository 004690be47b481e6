"""Values of HDF5 arrays out of a file's bytes: lying as in memory, in a header, or in chunks with filters.

The HDF5 library is not asked: threads read without waiting for each other, and a broken chunk is a sentence.
Where things lie was said by `hdf5_process`, and is compared with the file here.
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt

from caudal.core.messages import _
from caudal.data.byte_file import ByteFile, read_bytes
from caudal.data.sample_files.arrangement import bytes_of, claimed_bytes
from caudal.data.sample_files.base import Array
from caudal.data.unreadable import unreadable

_GZIP, _SHUFFLE, _FLETCHER, _LZF, _ZSTD = 1, 2, 3, 32000, 32015
_SQUEEZING = frozenset({_GZIP, _LZF, _ZSTD})
_MOST_SQUEEZED = {_GZIP: 1100, _LZF: 300, _ZSTD: 30_000}  # what a filter makes of a byte, at the most
_MOST_CHUNK_BYTES = 2**30
_CHECK_BYTES = 4


@dataclass(frozen=True)
class Hdf5Array:
    """`stored` is the dtype as written. One of `offset`, `inline` and `chunk` is set.

    `table` (chunks, axes + 3) has for each chunk, in the order of the grid, its first entry on each axis, its
    first byte, its bytes, and a bit for each filter that was left out; `filters` as they were applied.
    """

    name: str
    stored: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int | None = None
    inline: bytes | None = None
    chunk: tuple[int, ...] | None = None
    filters: tuple[int, ...] = ()
    table: npt.NDArray[np.int64] | None = None

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype in native byte order."""
        return self.stored.newbyteorder("=")

    @property
    def place(self) -> int | None:
        """Where its first byte is, if its bytes are those of an array in memory."""
        return self.offset if self.stored.isnative else None

    @property
    def chunk_bytes(self) -> int:
        """Bytes of a decoded chunk."""
        return math.prod(self.chunk or ()) * self.stored.itemsize

    @property
    def scratch_bytes(self) -> int:
        """The most that reading holds beside what is read into."""
        if self.table is None:
            return 2**20 if self.stored.isnative else math.prod(self.shape) * self.stored.itemsize
        return 3 * self.chunk_bytes + int(self.table[:, -2].max(initial=0))


def array_of(path: Path, record: Mapping[str, Any], tables: list[Any], size_bytes: int) -> Hdf5Array:
    """An array as its record says it lies, after seeing that it can lie there.

    Raises:
        UnreadableFile: it cannot, or has a filter that is not known here.
    """
    name, shape = str(record["name"]), tuple(record["shape"])
    stored = np.dtype(str(record["dtype"]))
    if "inline" in record:
        inline = bytes.fromhex(record["inline"])
        claimed_bytes(path, name, shape, stored.itemsize, len(inline))
        return Hdf5Array(name, stored, shape, inline=inline)
    if "offset" in record:
        offset = int(record["offset"])
        if not 0 <= offset <= size_bytes:
            raise unreadable(path, _("“{array}” begins behind its end").format(array=name))
        claimed_bytes(path, name, shape, stored.itemsize, size_bytes - offset)
        return Hdf5Array(name, stored, shape, offset=offset)
    return _chunked(path, name, stored, shape, record, tables, size_bytes)


def _chunked(
    path: Path,
    name: str,
    stored: np.dtype[Any],
    shape: tuple[int, ...],
    record: Mapping[str, Any],
    tables: list[Any],
    size_bytes: int,
) -> Hdf5Array:
    chunk, filters = tuple(map(int, record["chunk"])), tuple(map(int, record["filters"]))
    unknown = set(filters) - {_GZIP, _SHUFFLE, _FLETCHER, _LZF, _ZSTD}
    if unknown:
        raise unreadable(
            path,
            _("“{array}” is packed with the filter {filter}, which is not known here").format(
                array=name, filter=min(unknown)
            ),
            _("Write it anew with gzip, lzf or zstd, or without a filter."),
        )
    nbytes = math.prod(chunk) * stored.itemsize
    if len(chunk) != len(shape) or min(chunk, default=0) < 1 or nbytes > _MOST_CHUNK_BYTES:
        raise unreadable(path, _("the chunks of “{array}” are broken").format(array=name))
    table = np.asarray(tables[record["table"]]).reshape(-1, len(shape) + 3)
    grid = [-(-n // c) for n, c in zip(shape, chunk, strict=True)]
    if len(table) != math.prod(grid):
        raise unreadable(
            path,
            _("of “{array}” only {found} of {wanted} chunks were written").format(
                array=name, found=len(table), wanted=math.prod(grid)
            ),
            _("Write all of it, or leave the file out."),
        )
    firsts, places, sizes = table[:, :-3], table[:, -3], table[:, -2]
    table = table[np.lexsort(firsts.T[::-1])]
    steps = np.stack(np.unravel_index(np.arange(len(table)), grid), 1) if len(table) else firsts
    most = max((_MOST_SQUEEZED[one] for one in filters if one in _SQUEEZING), default=0)
    fits = (places >= 0) & (sizes > 0) & (places + sizes <= size_bytes)
    fits &= (sizes * most >= nbytes) if most else (sizes >= nbytes)
    if not fits.all() or not np.array_equal(table[:, :-3], steps * np.array(chunk)):
        raise unreadable(path, _("the chunks of “{array}” are broken").format(array=name))
    claimed_bytes(path, name, shape, stored.itemsize, max(1, len(table)) * nbytes)
    return Hdf5Array(name, stored, shape, chunk=chunk, filters=filters, table=table)


def read_rows(file: ByteFile, array: Hdf5Array, first: int, last: int, into: Array) -> None:
    """Fill `into` with the entries `first` … `last` - 1 of the first axis; of a scalar with its value.

    Raises:
        UnreadableFile: truncated, or a chunk is broken.
    """
    if array.table is not None:
        _read_chunks(file, array, first, last, into)
        return
    row_bytes = math.prod(array.shape[1:]) * array.stored.itemsize
    start, nbytes = first * row_bytes, into.nbytes
    if array.inline is not None:
        data: bytes | bytearray = array.inline[start : start + nbytes]
    elif array.stored.isnative:
        if nbytes:
            file.read_into((array.offset or 0) + start, bytes_of(into))
        return
    else:
        data = read_bytes(file, (array.offset or 0) + start, nbytes)
    into[...] = np.frombuffer(data, array.stored).reshape(into.shape)


def _read_chunks(file: ByteFile, array: Hdf5Array, first: int, last: int, into: Array) -> None:
    assert array.chunk is not None
    assert array.table is not None
    if not into.size:
        return
    grid = [-(-n // c) for n, c in zip(array.shape, array.chunk, strict=True)]
    step = array.chunk[0]
    axes = [range(first // step, -(-last // step)), *map(range, grid[1:])]
    for place in itertools.product(*axes):
        row = array.table[int(np.ravel_multi_index(place, grid))]
        values = _decoded(file, array, row)
        corner = [p * c for p, c in zip(place, array.chunk, strict=True)]
        ends = [min(a + c, n) for a, c, n in zip(corner, array.chunk, array.shape, strict=True)]
        low, high = max(corner[0], first), min(ends[0], last)
        of_chunk: tuple[slice, ...] = (slice(low - corner[0], high - corner[0]),)
        of_array: tuple[slice, ...] = (slice(low - first, high - first),)
        for a, b in zip(corner[1:], ends[1:], strict=True):
            of_chunk += (slice(0, b - a),)
            of_array += (slice(a, b),)
        into[of_array] = values[of_chunk]


def _decoded(file: ByteFile, array: Hdf5Array, row: npt.NDArray[np.int64]) -> Array:
    """The values of one chunk."""
    assert array.chunk is not None
    place, nbytes, left_out = (int(n) for n in row[-3:])
    data: Any = read_bytes(file, place, nbytes)
    broken = unreadable(
        Path(file.name), _("a chunk of “{array}” is broken at byte {at}").format(array=array.name, at=place)
    )
    wanted = array.chunk_bytes
    # A check that lies inside of what was squeezed makes that so much longer.
    checks = [k for k, one in enumerate(array.filters) if one == _FLETCHER and not left_out >> k & 1]
    try:
        for k in reversed(range(len(array.filters))):
            if left_out >> k & 1:
                continue
            inside = _CHECK_BYTES * sum(check < k for check in checks)
            data = _undo(array.filters[k], data, wanted + inside, array.stored.itemsize)
    except (ValueError, RuntimeError, zlib.error) as error:
        raise broken from error
    if len(data) != wanted:
        raise broken
    return np.frombuffer(data, array.stored).reshape(array.chunk)


def _undo(one: int, data: Any, wanted: int, itemsize: int) -> Any:
    """What a filter was given; at most `wanted` bytes."""
    if one == _GZIP:
        return zlib.decompressobj().decompress(data, wanted)
    if one == _LZF:
        return imagecodecs.lzf_decode(data, out=wanted)
    if one == _ZSTD:
        return imagecodecs.zstd_decode(data, out=wanted)
    if one == _FLETCHER:
        body, check = data[:-_CHECK_BYTES], data[-_CHECK_BYTES:]
        if int.from_bytes(check, "little") != _fletcher32(body):
            raise ValueError("checksum")
        return body
    if itemsize == 1 or len(data) % itemsize:
        return data
    return np.frombuffer(data, np.uint8).reshape(itemsize, -1).T.tobytes()


def _fletcher32(data: bytes) -> int:
    """The checksum of HDF5's filter: two sums, modulo 65535, of big-endian words of 16 bits."""
    even = data if len(data) % 2 == 0 else bytes(data) + b"\0"
    words = np.frombuffer(even, ">u2").astype(np.uint64)
    one = two = 0
    for start in range(0, len(words), 2**15):
        part = words[start : start + 2**15]
        weights = np.arange(len(part), 0, -1, dtype=np.uint64)
        two = (two + one * len(part) + int((part * weights).sum())) % 65535
        one = (one + int(part.sum())) % 65535
    return two << 16 | one

"""Arrays in HDF5 files (`.h5`, `.hdf5`): a field each, by the names at the ends of their paths.

Arrays that lie as in memory are never decoded: their places in the file are given. Those in chunks are
decoded chunk by chunk. Texts, one a sample, are a field that is known from the index. Links to other files
are not followed. Where arrays lie is asked of the HDF5 library in another process; see `hdf5_process`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from caudal.core.messages import _
from caudal.data.byte_file import ByteFile
from caudal.data.sample_files.arrangement import Coding, Stored, companions, one_by_one, whole_file
from caudal.data.sample_files.base import Array, Ints, Part
from caudal.data.sample_files.given_parts import given_parts, join_parts
from caudal.data.sample_files.hdf5_chunks import Hdf5Array, array_of, read_rows
from caudal.data.sample_files.hdf5_process import Described, describe
from caudal.data.sample_files.texts import with_texts
from caudal.data.unreadable import unreadable

_MOST_FIELDS = 256


@dataclass(frozen=True)
class _Block:
    """Of each field the array, and its entries of the first axis that the block's samples have."""

    rows: Mapping[str, tuple[Hdf5Array, int, int]]


class Hdf5Reader:
    """Reads `.h5` and `.hdf5`. See `SampleReader`."""

    suffixes = (".h5", ".hdf5")

    def part(self, file: ByteFile, whole: bool) -> Part:
        """See `SampleReader.part`."""
        path = Path(file.name)
        found, texts, left_out = _sorted(path, describe(file), file.size_bytes)
        arrays = [Stored(name, one.dtype, one.shape, one.place) for name, one in found.items()]
        coding = Coding("hdf5", 2**20 + max((one.scratch_bytes for one in found.values()), default=0))
        if whole:
            part = whole_file(path, arrays, coding, left_out)
            blocks = [_Block({name: (one, 0, (one.shape or (1,))[0]) for name, one in found.items()})]
            return with_texts(_in_blocks(part, blocks), texts)
        blocks = []

        def rows_of(given: Sequence[Stored], called: Mapping[str, str]) -> Part:
            def values_of(name: str) -> Array:
                one = found[called.get(name, name)]
                values = np.empty(one.shape, one.dtype)
                read_rows(file, one, 0, one.shape[0] if one.shape else 1, values)
                return values

            fields, ends = companions(path, given, values_of)
            part = one_by_one(path, fields, ends, coding, left_out)
            if part.places is None and part.samples:
                own = {field.name: found[called.get(field.name, field.name)] for field in part.fields}
                part = replace(part, ends=_block_ends(part, own))
                blocks.extend(_blocks(part, own))
            return part

        if given := given_parts(arrays):
            part = join_parts(path, given, lambda one: rows_of(one.arrays, one.called))
            return with_texts(_in_blocks(part, blocks), texts, given)
        return with_texts(_in_blocks(rows_of(arrays, {}), blocks), texts)

    def read(self, file: ByteFile, part: Part, block: int, into: Mapping[str, Array]) -> None:
        """See `SampleReader.read`."""
        assert isinstance(part.notes, tuple)
        for name, (array, first, last) in part.notes[block].rows.items():
            read_rows(file, array, first, last, into[name])


def _sorted(
    path: Path, described: Described, size_bytes: int
) -> tuple[dict[str, Hdf5Array], dict[str, list[str]], list[str]]:
    """Arrays of numbers and of texts by the names of their fields, and sentences about all others."""
    if len(described.arrays) > _MOST_FIELDS:
        raise unreadable(
            path,
            _("it holds more than {count} arrays").format(count=_MOST_FIELDS),
            _("Join the samples into one array, with NAME.ends beside it where they differ in length."),
        )
    why = {
        "empty": _("it is empty"),
        "texts": _("it holds too many texts"),
        "numbers": _("it holds no numbers"),
        "elsewhere": _("its values lie in other files"),
        "unwritten": _("it was never written"),
    }
    try:
        leaves = Counter(str(one["name"]).rpartition("/")[2] for one in described.arrays)
        arrays: dict[str, Hdf5Array] = {}
        texts: dict[str, list[str]] = {}
        left_out = []
        for record in described.arrays:
            whole_name = str(record["name"])
            leaf = whole_name.rpartition("/")[2]
            name = leaf if leaves[leaf] == 1 else whole_name.replace("/", ".")
            if "why" in record:
                left_out.append(
                    _("“{name}” is left out: {why}.").format(name=name, why=why[str(record["why"])])
                )
            elif "texts" in record:
                texts[name] = [str(one) for one in record["texts"]]
            else:
                arrays[name] = array_of(path, record, described.tables, size_bytes)
    except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise unreadable(path, _("it is broken: what it says of its arrays makes no sense")) from error
    return arrays, texts, left_out


def _in_blocks(part: Part, blocks: Sequence[_Block]) -> Part:
    if part.places is not None:
        return part
    assert len(blocks) == len(part.ends)
    return replace(part, notes=tuple(blocks))


def _block_ends(part: Part, arrays: Mapping[str, Hdf5Array]) -> Ints:
    """Blocks as the chunks of the largest array in chunks cut the samples; one where nothing is in chunks."""
    chunked = [field for field in part.fields if arrays[field.name].chunk is not None]
    if not chunked:
        return part.ends
    largest = max(chunked, key=lambda field: int(np.prod(arrays[field.name].shape)) * field.dtype.itemsize)
    step = (arrays[largest.name].chunk or (1,))[0]
    rows = part.rows.get(largest.name, np.ones(part.samples, np.int64))
    number = (np.cumsum(rows) - rows) // step  # of the chunk in which a sample begins
    return np.append(np.flatnonzero(np.diff(number)) + 1, part.samples).astype(np.int64)


def _blocks(part: Part, arrays: Mapping[str, Hdf5Array]) -> list[_Block]:
    ends: dict[str, Any] = {name: np.cumsum(rows) for name, rows in part.rows.items()}
    made, first = [], 0
    for last in part.ends.tolist():
        rows = {}
        for name, array in arrays.items():
            at = ends.get(name)
            low = first if at is None else int(at[first - 1]) if first else 0
            high = last if at is None else int(at[last - 1])
            rows[name] = (array, low, high)
        made.append(_Block(rows))
        first = last
    return made

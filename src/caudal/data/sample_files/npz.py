"""NumPy arrays under names in a zip archive (`.npz`): a field each.

Arrays that `np.savez` stored are never decoded: their places in the file are given. Those that
`np.savez_compressed` wrote are decompressed as one block a file, straight into the samples. Texts, one a
sample, are known from the index on.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np

from caudal.core.messages import _
from caudal.data.byte_file import ByteFile
from caudal.data.sample_files.arrangement import Coding, Stored, companions, one_by_one, whole_file
from caudal.data.sample_files.array_stream import PIECE_BYTES, ArrayHeader, array_header, pour
from caudal.data.sample_files.base import Array, Part
from caudal.data.sample_files.given_parts import given_parts, join_parts
from caudal.data.sample_files.likeness import Likeness, likeness_of
from caudal.data.sample_files.number_types import why_no_number
from caudal.data.sample_files.texts import MOST_TEXT_BYTES, texts_of, with_texts
from caudal.data.sample_files.zip_layout import Layout, zip_layout
from caudal.data.sample_files.zip_records import checked_records, open_zip, record_start
from caudal.data.unreadable import unreadable

_SUFFIX = ".npy"
_INFLATE_BYTES = 3 * PIECE_BYTES  # compressed and decompressed pieces, and the decoder's window


class NpzReader:
    """Reads `.npz`. See `SampleReader`."""

    suffixes = (".npz",)

    def part(self, file: ByteFile, whole: bool) -> Part:
        """See `SampleReader.part`."""
        path = Path(file.name)
        arrays, left_out, scratch_bytes = [], [], 0
        texts: dict[str, list[str]] = {}
        with open_zip(file) as archive:
            for record_name, record in checked_records(file, archive).items():
                name = record_name.removesuffix(_SUFFIX)
                if name == record_name:
                    left_out.append(_("“{name}” is left out: it is no array.").format(name=name))
                    continue
                header = _header(archive, record, path)
                if header.dtype.kind in "US" and len(header.shape) < 2 and header.nbytes <= MOST_TEXT_BYTES:
                    texts[name] = texts_of(_values(archive, name, path))
                    continue
                if why := why_no_number(header.dtype):
                    left_out.append(_("“{name}” is left out: {why}.").format(name=name, why=why))
                    continue
                stored = record.compress_type == zipfile.ZIP_STORED and header.as_in_memory
                offset = record_start(file, record) + header.start if stored else None
                arrays.append(Stored(name, header.dtype, header.shape, offset))
                scratch_bytes = max(scratch_bytes, header.scratch_bytes)
            coding = Coding("npz", scratch_bytes + _INFLATE_BYTES)
            if whole:
                return with_texts(whole_file(path, arrays, coding, left_out), texts)

            def rows_of(given: Sequence[Stored], called: Mapping[str, str]) -> Part:
                fields, ends = companions(path, given, lambda n: _values(archive, called.get(n, n), path))
                return one_by_one(path, fields, ends, coding, left_out)

            if given := given_parts(arrays):
                joined = join_parts(path, given, lambda one: rows_of(one.arrays, one.called))
                return with_texts(joined, texts, given)
            return with_texts(rows_of(arrays, {}), texts)

    def likeness(self, file: ByteFile, whole: bool) -> Likeness | None:
        """See `LikenessReader`: all but the values of arrays, where these are stored and say no more."""
        if not whole:
            return None
        with open_zip(file) as archive:
            layout = zip_layout(file, archive)
            checks = _free_values(layout, archive, Path(file.name)) if layout else None
        if layout is None or checks is None:
            return None
        return likeness_of(file.size_bytes, layout.free, (), checks)

    def read(self, file: ByteFile, part: Part, block: int, into: Mapping[str, Array]) -> None:
        """See `SampleReader.read`."""
        with open_zip(file) as archive:
            records = checked_records(file, archive)
            called: Mapping[str, str] = {}
            if isinstance(part.notes, tuple):  # a block for each part that the file names
                called = part.notes[block].called
            for field in part.fields:
                record = records.get(called.get(field.name, field.name) + _SUFFIX)
                _pour_record(archive, record, into[field.name], Path(file.name))


def _free_values(layout: Layout, archive: zipfile.ZipFile, path: Path) -> list[tuple[int, int, int]] | None:
    """Let values and checksums of stored arrays differ; the checks that take their place."""
    checks = []
    for one, info in zip(layout.records, archive.infolist(), strict=True):
        if not one.name.endswith(_SUFFIX):
            continue
        header = _header(archive, info, path)
        if info.compress_type != zipfile.ZIP_STORED or header.dtype.kind in "US":
            return None
        layout.free.append((one.values[0] + header.start, one.values[1]))
        layout.free_checksum(one)
        checks.append(layout.check(one))
    return checks


def _header(archive: zipfile.ZipFile, record: zipfile.ZipInfo, path: Path) -> ArrayHeader:
    with archive.open(record) as stream:
        return array_header(stream, path, record.filename.removesuffix(_SUFFIX), record.file_size)


def _values(archive: zipfile.ZipFile, name: str, path: Path) -> Array:
    record = archive.getinfo(name + _SUFFIX)
    header = _header(archive, record, path)
    values = np.empty(header.shape, header.dtype)
    _pour_record(archive, record, values, path)
    return values


def _pour_record(archive: zipfile.ZipFile, record: zipfile.ZipInfo | None, into: Array, path: Path) -> None:
    changed = unreadable(path, _("it is not what it was when it was indexed"), _("Index the data again."))
    if record is None:
        raise changed
    with archive.open(record) as stream:
        header = array_header(stream, path, record.filename.removesuffix(_SUFFIX), record.file_size)
        if header.nbytes != into.nbytes:
            raise changed
        pour(cast("zipfile.ZipExtFile", stream), header, into)
        stream.read(1)  # at its end the record's checksum is compared

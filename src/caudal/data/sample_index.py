"""Makes a `SampleSet` of a folder, a file or a list of files: one pass over headers, no sample read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from caudal.core.errors import BadValues, DataError, UnreadableFile
from caudal.core.messages import _
from caudal.data.index import Names
from caudal.data.locations import is_remote, list_files, open_bytes
from caudal.data.pack_layout import check_finished
from caudal.data.paths import local_path
from caudal.data.sample_files import sample_readers
from caudal.data.sample_files.base import Array, Field, Ints, Part, SampleReader
from caudal.data.sample_set import BLOCK_BYTES, DIRECT_BYTES, Columns, SampleSet

Arrangement = Literal["auto", "file", "rows"]


@dataclass(frozen=True)
class _Found:
    name: str
    size_bytes: int
    part: Part


def index_samples(
    root: str,
    arrangement: Arrangement = "auto",
    reader: SampleReader | None = None,
    threads: int = 2,
    tick: Callable[[int, int], None] = lambda _done, _total: None,
    tolerant: bool = False,
) -> SampleSet:
    """Index every file below `root` that a sample reader knows (all of one format).

    `arrangement` says what a sample is in a file of arrays: the whole `file`, or each of its `rows` (entries
    along the first axis); `auto` decides by the first files and says so in the notes. Files of text, tables
    and graphs know it by themselves. `reader` replaces the one found by the names. A `tolerant` index lists
    files that say nothing of themselves in `unreadable`, as long as each of the others is one sample.

    Raises:
        UnreadableFile: nothing to read there, or a broken file.
        DataError: files of several formats, or files whose fields differ.
    """
    if not is_remote(root):
        check_finished(local_path(root))
    files, reader = _files(root, reader)
    whole, notes = _arrangement(files, reader, arrangement)
    found: list[_Found] = []
    errors: list[UnreadableFile] = []
    with ThreadPoolExecutor(threads) as pool:
        for done, one in enumerate(pool.map(lambda f: _try(f[0], f[1], reader, whole), files)):
            if isinstance(one, _Found):
                found.append(one)
            elif tolerant:
                errors.append(one)
            else:
                raise one
            tick(done + 1, len(files))
    if errors and (not found or any(one.part.samples != 1 for one in found)):
        raise errors[0]  # nobody knows how much is lost with it
    joined = _join(root, [one for one in found if one.part.samples], reader, whole, notes)
    return replace(joined, unreadable=tuple((str(error.facts["path"]), error.message) for error in errors))


def _files(root: str, reader: SampleReader | None) -> tuple[list[tuple[str, int]], SampleReader]:
    known = dict.fromkeys(reader.suffixes, reader) if reader else sample_readers()
    files = list_files(root, tuple(known))
    if not files:
        raise UnreadableFile(
            _("{path} holds no file of samples that can be read.").format(path=root),
            _("Files of samples end in one of: {suffixes}.").format(suffixes=" ".join(sorted(known))),
            path=root,
        )
    readers = {id(found): found for found in (_reader_of(name, known) for name, _size in files)}
    if len(readers) > 1:
        kinds = sorted({suffix for suffix in known if any(name.endswith(suffix) for name, _size in files)})
        raise DataError(
            _("{path} holds files of several formats: {kinds}.").format(path=root, kinds=" ".join(kinds)),
            _("Give a folder, or a pattern, with files of one format."),
        )
    return files, next(iter(readers.values()))


def _reader_of(name: str, known: dict[str, SampleReader]) -> SampleReader:
    lower = name.lower()
    longest = max((suffix for suffix in known if lower.endswith(suffix.lower())), key=len)
    return known[longest]


def _look(name: str, size_bytes: int, reader: SampleReader, whole: bool) -> _Found:
    file = open_bytes(name)
    try:
        return _Found(name, size_bytes, reader.part(file, whole))
    finally:
        file.close()


def _try(name: str, size_bytes: int, reader: SampleReader, whole: bool) -> _Found | UnreadableFile:
    try:
        return _look(name, size_bytes, reader, whole)
    except UnreadableFile as error:
        return error


def _arrangement(
    files: Sequence[tuple[str, int]], reader: SampleReader, asked: Arrangement
) -> tuple[bool, tuple[str, ...]]:
    """Whether a file is one sample."""
    if asked != "auto":
        return asked == "file", ()
    name, size_bytes = files[0]
    try:
        part = _look(name, size_bytes, reader, whole=False).part
    except UnreadableFile:
        return True, ()  # if it is broken, it will be so as a whole sample too, and named then
    try:
        alone = _look(name, size_bytes, reader, whole=True).part
    except UnreadableFile:
        return False, ()  # a format whose files always hold many
    if part.extra or alone.fields == part.fields:
        return False, ()  # a format that knows no difference
    if any(one.ragged for one in part.fields):
        return False, ()  # a companion `.ends` says where each of many samples ends
    # A number beside the arrays belongs to all of the file; and a lone array may be either.
    more, many = len(alone.fields) > len(part.fields), len(part.fields) > 1
    if not more and (len(files) == 1 or many or any(len(f.shape) > 2 for f in part.fields)):
        note = _('Each file holds many samples (first axis); say samples="file" if it holds one.')
        return False, (note,)
    return True, (_('Each file is one sample; say samples="rows" if it holds many (first axis).'),)


def _join(
    root: str, found: list[_Found], reader: SampleReader, whole: bool, notes: tuple[str, ...]
) -> SampleSet:
    if not found:
        raise BadValues(_("{path} holds no sample.").format(path=root), _("Check the folder."))
    fields = found[0].part.fields
    for one in found:
        _check_fields(found[0], one)
    fields, recode = _common_categories(fields, found)
    counts = np.array([one.part.samples for one in found], np.int64)
    raw = all(one.part.places is not None for one in found)
    rows = {
        f.name: np.cumsum(np.concatenate([one.part.rows[f.name] for one in found]), dtype=np.int64)
        for f in fields
        if f.ragged
    }
    places = (
        {f.name: np.concatenate([one.part.places[f.name] for one in found]) for f in fields}  # type: ignore[index]
        if raw
        else None
    )
    file_ends = np.cumsum(counts)
    begins = file_ends - counts
    checks = [one.part.checks for one in found if one.part.checks is not None]
    checked = raw and len(checks) == len(found)
    if raw and not checked:
        block_ends, file_blocks = _raw_blocks(fields, rows, file_ends)
    else:
        block_ends = np.concatenate([one.part.ends + b for one, b in zip(found, begins, strict=True)])
        file_blocks = np.cumsum([len(one.part.ends) for one in found], dtype=np.int64)
    columns = Columns(
        names=Names.pack(one.name for one in found),
        sizes=np.array([one.size_bytes for one in found], np.int64),
        file_ends=file_ends,
        file_blocks=file_blocks,
        block_ends=block_ends,
        row_ends=rows,
        places=places,
        checks=np.concatenate(checks) if checked else None,
        recode=recode,
    )
    left_out = tuple(sorted({text for one in found for text in one.part.left_out}))
    scratch = max(one.part.scratch_bytes for one in found)
    made = SampleSet(root, fields, columns, reader, whole, scratch, notes + left_out)
    for name in found[0].part.extra:
        made = _with_known(made, name, found)
    return made


def _with_known(samples: SampleSet, name: str, found: list[_Found]) -> SampleSet:
    """The set with a field that files know without being read, its texts numbered alike in all of them."""
    if not all(name in one.part.extra for one in found):
        return samples
    every = tuple(sorted(set().union(*(one.part.extra[name][1] for one in found))))
    number = {text: code for code, text in enumerate(every)}
    codes = [
        np.array([number[text] for text in texts], np.int64)[values]
        for values, texts in (one.part.extra[name] for one in found)
    ]
    return with_extra(samples, name, np.concatenate(codes), every)


def _raw_blocks(fields: tuple[Field, ...], rows: dict[str, Ints], file_ends: Ints) -> tuple[Ints, Ints]:
    """Blocks of about `BLOCK_BYTES`, inside files; of one sample each where samples are large."""
    total = int(file_ends[-1])
    sizes = np.zeros(total, np.int64)
    for one in fields:
        sizes += one.row_bytes * (np.diff(rows[one.name], prepend=0) if one.ragged else 1)
    if sizes.mean() >= DIRECT_BYTES:
        return np.arange(1, total + 1, dtype=np.int64), file_ends
    # A block ends where the bytes so far pass a multiple of the block's size, or a file ends.
    number = (np.cumsum(sizes) - sizes) // BLOCK_BYTES
    ends = np.union1d(np.flatnonzero(np.diff(number)) + 1, file_ends)
    return ends, np.searchsorted(ends, file_ends, "right").astype(np.int64)


def _check_fields(first: _Found, other: _Found) -> None:
    """Raise unless both files have the same fields."""
    if [_kind(f) for f in first.part.fields] == [_kind(f) for f in other.part.fields]:
        return
    raise DataError(
        _("{a} holds {fields_a}, and {b} holds {fields_b}.").format(
            a=first.name, fields_a=_say(first.part.fields), b=other.name, fields_b=_say(other.part.fields)
        ),
        _("All files of a set have the same fields, with the same dtypes and shapes."),
    )


def _kind(one: Field) -> tuple[object, ...]:
    return one.name, one.dtype, one.shape


def _say(fields: tuple[Field, ...]) -> str:
    return ", ".join(
        f"{f.name} {f.dtype}[{', '.join('…' if n is None else str(n) for n in f.shape)}]" for f in fields
    )


def _common_categories(
    fields: tuple[Field, ...], found: list[_Found]
) -> tuple[tuple[Field, ...], dict[str, Ints]]:
    """Texts became numbers file by file; in the set they mean the same in all of them.

    The fields with the texts of all files, and for those that differ, the number in the set (files, codes) of
    each file's own.
    """
    common, recode = [], {}
    for k, one in enumerate(fields):
        own = [other.part.fields[k].categories for other in found]
        if all(texts == one.categories for texts in own):
            common.append(one)
            continue
        every = tuple(sorted(set().union(*own)))
        number = {text: code for code, text in enumerate(every)}
        table = np.zeros((len(own), max(map(len, own))), np.int64)
        for file, texts in enumerate(own):
            table[file, : len(texts)] = [number[text] for text in texts]
        common.append(replace(one, categories=every))
        recode[one.name] = table
    return tuple(common), recode


def with_extra(samples: SampleSet, name: str, values: Array, categories: tuple[str, ...] = ()) -> SampleSet:
    """The set with one more scalar field, whose values are known already: one for each sample.

    Raises:
        DataError: the set has a field of that name.
    """
    assert len(values) == len(samples)
    if any(one.name == name for one in samples.fields):
        raise DataError(
            _("{path} has a field “{name}” already.").format(path=samples.root, name=name),
            _("Choose another name for the labels."),
        )
    extra = {**samples.columns.extra, name: values}
    one = Field(name, values.dtype, (), categories)
    return replace(samples, fields=(*samples.fields, one), columns=replace(samples.columns, extra=extra))


def labels_from_folders(samples: SampleSet) -> SampleSet | None:
    """The set with the field `label`: the folder that each file lies in; `None` if there is one folder."""
    names = samples.columns.names
    folders = [Path(names[i]).parent.name for i in range(len(names))]
    classes = tuple(sorted(set(folders)))
    if len(classes) < 2:
        return None
    number = {text: k for k, text in enumerate(classes)}
    of_file = np.array([number[text] for text in folders], np.int64)
    per_sample = np.repeat(of_file, np.diff(samples.columns.file_ends, prepend=0))
    return with_extra(samples, "label", per_sample, classes)

"""Makes a `SampleSet` of a folder, a file or a list of files: one pass over headers, no sample read."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Literal

import numpy as np

from caudal.core.errors import BadValues, DataError, UnreadableFile
from caudal.core.messages import _
from caudal.data.index import Names
from caudal.data.locations import is_remote
from caudal.data.pack_layout import check_finished
from caudal.data.paths import local_path
from caudal.data.sample_files import sample_readers
from caudal.data.sample_files.base import AlikeReader, Array, Field, Ints, SampleReader
from caudal.data.sample_files.likeness import LikenessReader
from caudal.data.sample_headers import Headers, part_of
from caudal.data.sample_listing import ends_in, list_names, texts
from caudal.data.sample_parts import Parts, joined
from caudal.data.sample_set import BLOCK_BYTES, DIRECT_BYTES, Columns, SampleSet
from caudal.data.sample_split import TEST, TRAIN, VALIDATION

Arrangement = Literal["auto", "file", "rows"]

_TABLE = ".csv"
_MOST_FILES = 4096  # whose parts stand as Python objects in one thread


def index_samples(
    root: str,
    arrangement: Arrangement = "auto",
    reader: SampleReader | None = None,
    threads: int = 2,
    tick: Callable[[int, int], None] = lambda _done, _total: None,
    tolerant: bool = False,
    table: str = "",
) -> SampleSet:
    """Index every file below `root` that a sample reader knows (all of one format).

    `arrangement` says what a sample is in a file of arrays: the whole `file`, or each of its `rows` (entries
    along the first axis); `auto` decides by the first files and says so in the notes. Files of text, tables
    and graphs know it by themselves. `reader` replaces the one found by the names. A `tolerant` index lists
    files that say nothing of themselves in `unreadable`, as long as each of the others is one sample. The
    file `table` says something of samples, and is none.

    Raises:
        UnreadableFile: nothing to read there, or a broken file.
        DataError: files of several formats, or files whose fields differ.
    """
    if not is_remote(root):
        check_finished(local_path(root))
    names, reader, said = _names(root, reader, table)
    whole, notes = _arrangement(names, reader, arrangement)
    notes = (*said, *notes)
    local = not is_remote(root)
    alike = reader if local and isinstance(reader, AlikeReader | LikenessReader) else None
    look = Headers(names, reader, whole, tolerant, alike)
    step = min(_MOST_FILES, max(1, len(names) // (16 * threads)))
    pieces: list[Parts] = []
    errors: list[UnreadableFile] = []
    with ThreadPoolExecutor(threads) as pool:
        try:
            for first, (parts, broken) in zip(
                range(0, len(names), step),
                pool.map(lambda first: look.at(first, first + step), range(0, len(names), step)),
                strict=True,
            ):
                pieces += [parts] if parts else []
                errors += broken
                tick(min(first + step, len(names)), len(names))
        except BaseException:  # Ctrl-C as well: no header is read any more for an index that nobody gets
            pool.shutdown(cancel_futures=True)
            raise
    if errors and (not pieces or any((one.counts != 1).any() for one in pieces)):
        raise errors[0]  # nobody knows how much is lost with it
    made = _set(root, names, pieces, reader, whole, notes)
    return replace(made, unreadable=tuple((str(error.facts["path"]), error.message) for error in errors))


def _names(root: str, reader: SampleReader | None, table: str) -> tuple[Names, SampleReader, tuple[str, ...]]:
    """The files of samples, their reader, and what is to be said of others."""
    known = dict.fromkeys(reader.suffixes, reader) if reader else sample_readers()
    names = list_names(root, tuple(known))
    names, said = _without_tables(names, root, table)
    if not len(names):
        raise UnreadableFile(
            _("{path} holds no file of samples that can be read.").format(path=root),
            _("Files of samples end in one of: {suffixes}.").format(suffixes=" ".join(sorted(known))),
            path=root,
        )
    first = _reader_of(names[0], known)
    own = tuple(suffix.lower() for suffix in known if known[suffix] is first)
    longer = tuple(s.lower() for s in known if known[s] is not first and s.lower().endswith(own))
    if not ends_in(names, own).all() or ends_in(names, longer).any():
        kinds = sorted({suffix for suffix in known if any(one.endswith(suffix) for one in texts(names))})
        raise DataError(
            _("{path} holds files of several formats: {kinds}.").format(path=root, kinds=" ".join(kinds)),
            _("Give a folder, or a pattern, with files of one format."),
        )
    return names, first, said


def _without_tables(names: Names, root: str, table: str) -> tuple[Names, tuple[str, ...]]:
    """The names without those that are about samples: `table`, or a CSV alone among files of another kind."""
    left = ends_in(names, (_TABLE,))
    if not left.any():
        return names, ()
    tables = [names[k] for k in np.flatnonzero(left).tolist()]
    if table and (own := [name for name in tables if os.path.realpath(name) == os.path.realpath(table)]):
        return Names.pack(name for name in texts(names) if name != own[0]), ()
    if len(tables) > 1 or left.all():
        return names, ()
    note = _("{table} is no sample; give it with --labels if it says what the files are.")
    return Names.pack(name for name in texts(names) if name != tables[0]), (note.format(table=tables[0]),)


def _reader_of(name: str, known: dict[str, SampleReader]) -> SampleReader:
    lower = name.lower()
    longest = max((suffix for suffix in known if lower.endswith(suffix.lower())), key=len)
    return known[longest]


def _arrangement(names: Names, reader: SampleReader, asked: Arrangement) -> tuple[bool, tuple[str, ...]]:
    """Whether a file is one sample."""
    if asked != "auto":
        return asked == "file", ()
    try:
        part = part_of(names[0], reader, whole=False)[1]
    except UnreadableFile:
        return True, ()  # if it is broken, it will be so as a whole sample too, and named then
    try:
        alone = part_of(names[0], reader, whole=True)[1]
    except UnreadableFile:
        return False, ()  # a format whose files always hold many
    if part.extra or alone.fields == part.fields:
        return False, ()  # a format that knows no difference
    if any(one.ragged for one in part.fields):
        return False, ()  # a companion `.ends` says where each of many samples ends
    # A number beside the arrays belongs to all of the file; and a lone array may be either.
    more, many = len(alone.fields) > len(part.fields), len(part.fields) > 1
    if not more and (len(names) == 1 or many or any(len(f.shape) > 2 for f in part.fields)):
        note = _('Each file holds many samples (first axis); say samples="file" if it holds one.')
        return False, (note,)
    return True, (_('Each file is one sample; say samples="rows" if it holds many (first axis).'),)


def _set(
    root: str, names: Names, pieces: list[Parts], reader: SampleReader, whole: bool, notes: tuple[str, ...]
) -> SampleSet:
    if not pieces:
        raise BadValues(_("{path} holds no sample.").format(path=root), _("Check the folder."))
    parts = joined(pieces)
    pieces.clear()
    if len(parts) < len(names):
        names = Names.pack(names[k] for k in parts.files.tolist())
    fields, recode = _common_categories(parts)
    rows = {name: np.cumsum(each, dtype=np.int64) for name, each in parts.rows.items()}
    file_ends = np.cumsum(parts.counts)
    checked = parts.places is not None and parts.checks is not None
    if parts.places is not None and not checked:
        block_ends, file_blocks = raw_blocks(fields, rows, file_ends)
    else:
        block_ends = parts.ends + np.repeat(file_ends - parts.counts, parts.blocks)
        file_blocks = np.cumsum(parts.blocks, dtype=np.int64)
    columns = Columns(
        names=names,
        sizes=parts.sizes,
        file_ends=file_ends,
        file_blocks=file_blocks,
        block_ends=block_ends,
        row_ends=rows,
        places=parts.places,
        checks=parts.checks if checked else None,
        recode=recode,
    )
    left_out = tuple(sorted(parts.left_out))
    made = SampleSet(root, fields, columns, reader, whole, parts.scratch_bytes, notes + left_out)
    for name in dict.fromkeys(name for extra in parts.extra for name in extra):
        made = _with_known(made, name, parts)
    return made


def _with_known(samples: SampleSet, name: str, parts: Parts) -> SampleSet:
    """The set with a field that files know without being read, its texts numbered alike in all of them."""
    lacking = next((k for k, extra in enumerate(parts.extra) if name not in extra), None)
    if lacking is not None:
        raise DataError(
            _("{path} has no “{name}”, and other files have it.").format(
                path=samples.columns.names[lacking], name=name
            ),
            _("All files of a set have the same fields, with the same dtypes and shapes."),
        )
    every = tuple(sorted(set().union(*(extra[name][1] for extra in parts.extra))))
    number = {text: code for code, text in enumerate(every)}
    codes = [
        np.array([number[text] for text in own], np.int64)[values]
        for values, own in (extra[name] for extra in parts.extra)
    ]
    return with_extra(samples, name, np.concatenate(codes), every)


def raw_blocks(fields: tuple[Field, ...], rows: dict[str, Ints], file_ends: Ints) -> tuple[Ints, Ints]:
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


def _common_categories(parts: Parts) -> tuple[tuple[Field, ...], dict[str, Ints]]:
    """Texts became numbers file by file; in the set they mean the same in all of them.

    The fields with the texts of all files, and for those that differ, the number in the set (files, codes) of
    each file's own.
    """
    common, recode = [], {}
    for one in parts.fields:
        own = parts.categories.get(one.name, [])
        if all(texts_ == one.categories for texts_ in own):
            common.append(one)
            continue
        every = tuple(sorted(set().union(*own)))
        number = {text: code for code, text in enumerate(every)}
        table = np.zeros((len(own), max(map(len, own))), np.int64)
        for file, texts_ in enumerate(own):
            table[file, : len(texts_)] = [number[text] for text in texts_]
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
    """The set with the field `label`: the folder that each file lies in; `None` if there is one folder.

    Folders called train, val, test and the like are parts of a split: then the one above counts.
    """
    number: dict[str, int] = {}
    names = samples.columns.names
    folders = (name.replace(os.sep, "/").rpartition("/")[0] for name in texts(names))
    of_path = np.fromiter((number.setdefault(one, len(number)) for one in folders), np.int64, len(names))
    called = [_class_of(path, samples.root) for path in number]
    classes = tuple(sorted(set(called)))
    if len(classes) < 2:
        return None
    code = {text: k for k, text in enumerate(classes)}
    of_file = np.array([code[text] for text in called], np.int64)[of_path]
    per_sample = np.repeat(of_file, np.diff(samples.columns.file_ends, prepend=0))
    return with_extra(samples, "label", per_sample, classes)


def _class_of(folder: str, root: str) -> str:
    """The name of a folder, or of the nearest above it, that is no part of a split."""
    root = root.replace(os.sep, "/").rstrip("/")
    below = folder.removeprefix(root).strip("/").split("/") if folder.startswith(root) else [folder]
    parts = {*TRAIN, *VALIDATION, *TEST}
    named = [name for name in below if name and name.lower() not in parts]
    return named[-1] if named else root.rpartition("/")[2]

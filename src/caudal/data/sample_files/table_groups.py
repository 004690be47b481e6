"""The row groups of a Parquet table: what its metadata says, and their columns, a block each.

Texts and lists of different length are read once when the file is indexed: their number is in no metadata.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import numpy as np

from caudal.core.messages import _
from caudal.data.byte_file import ByteFile, FileObject
from caudal.data.sample_files.base import Array, Field, Ints, Part
from caudal.data.sample_files.table_columns import (
    Arrow,
    Filler,
    arrow,
    check_names,
    different_texts,
    is_ragged,
    is_text,
    left_out,
    left_out_texts,
    number_field,
    row_lengths,
    table_errors,
    text_field,
)
from caudal.data.sample_files.table_footer import Footer, read_footer
from caudal.data.unreadable import unreadable

_BUFFER_BYTES = 1 << 20
_SMALL_BYTES = 1 << 24
_BATCH_ROWS = 1 << 14  # of texts
_BATCH_LISTS = 1 << 8  # how long lists are is not known before


def parquet_part(file: ByteFile, whole: bool) -> Part:
    """What a Parquet file says of itself.

    Raises:
        UnreadableFile: broken, or without a column of numbers.
    """
    path, footer = Path(file.name), read_footer(file)
    with _open(file, footer) as table:
        schema, metadata = table.schema_arrow, table.metadata
        check_names(path, schema.names)
        fields, rows, sentences, leaf = [], {}, [], 0
        for name, kind in zip(schema.names, schema.types, strict=True):
            field: Field | None
            if is_text(path, kind):
                texts = different_texts(path, _pieces(path, table, name))
                field = None if texts is None else text_field(name, whole, texts)
                sentences += [left_out_texts(name)] if texts is None else []
            elif is_ragged(path, kind) and not whole:
                field, rows[name] = _list_field(path, table, name, kind)
                sentences += [] if field else [left_out(name, kind)]
            else:
                # Without statistics nothing is known to be missing; `read` refuses what is.
                field = number_field(path, name, kind, whole, any(footer.nulls[leaf : leaf + 1]))
                sentences += [] if field else [left_out(name, kind)]
            fields += [field] if field else []
            leaf += _leaves(path, kind)
        if not fields:
            raise unreadable(path, _("it has no column of numbers"))
        counts = np.array([count for count in footer.rows if count], np.int64)
        ends = np.ones(1, np.int64) if whole else np.cumsum(counts)
        if whole:
            rows = {field.name: np.array([counts.sum()], np.int64) for field in fields}
        rows = {field.name: rows[field.name] for field in fields if field.ragged}
        if any(len(lengths) != (1 if whole else counts.sum()) for lengths in rows.values()):
            raise unreadable(path, _("its row groups do not count its rows"))
        scratch_bytes = _scratch_bytes(footer, fields, {} if whole else rows)
    return Part(
        fields=tuple(fields),
        ends=ends,
        rows=rows,
        scratch_bytes=scratch_bytes,
        codec="parquet",
        left_out=tuple(sentences),
        notes=(footer, metadata),
    )


def parquet_read(file: ByteFile, part: Part, block: int, into: Mapping[str, Array]) -> None:
    """Fill `into` with the columns of one row group, or of all where the file is one sample.

    Raises:
        UnreadableFile: broken, or not what `part` says.
    """
    path = Path(file.name)
    footer, metadata = cast("tuple[Footer, Arrow]", part.notes)
    groups = [group for group, count in enumerate(footer.rows) if count]
    with _open(file, footer, metadata) as table:
        chosen = groups if part.samples == 1 else groups[block : block + 1]
        for field in part.fields:
            filler = Filler(path, field, into[field.name])
            for piece in _pieces(path, table, field.name, chosen):
                filler.add(piece)
            filler.finish()


@contextmanager
def _open(file: ByteFile, footer: Footer, metadata: Arrow = None) -> Iterator[Arrow]:
    path = Path(file.name)
    # A buffered stream allocates what a page claims, up to 2 GiB, before it reads; small chunks do without.
    buffer_bytes = _BUFFER_BYTES if footer.stored_bytes > _SMALL_BYTES else 0
    parquet = arrow(path, "pyarrow.parquet")
    with (
        table_errors(path),
        parquet.ParquetFile(
            FileObject(file), metadata=metadata, buffer_size=buffer_bytes, pre_buffer=False
        ) as table,
    ):
        yield table


def _pieces(path: Path, table: Arrow, name: str, groups: Sequence[int] | None = None) -> Iterator[Arrow]:
    """A column in pieces, so that no row group has to be held."""
    chosen = list(range(table.num_row_groups) if groups is None else groups)
    if not chosen:
        return
    rows = _batch_rows(path, table.schema_arrow.field(name).type)
    for batch in table.iter_batches(rows, row_groups=chosen, columns=[name], use_threads=False):
        yield batch.column(name)


def _batch_rows(path: Path, kind: Arrow) -> int:
    """How many rows of a column are decoded at once: about a mebibyte."""
    if is_ragged(path, kind):
        return _BATCH_LISTS
    field = number_field(path, "", kind, whole=False, nulls=False)
    return max(1, _BUFFER_BYTES // max(1, field.row_bytes)) if field else _BATCH_ROWS


def _list_field(path: Path, table: Arrow, name: str, kind: Arrow) -> tuple[Field | None, Array]:
    """The field of a column of lists, and the length of each list."""
    if number_field(path, name, kind, whole=False, nulls=False) is None:
        return None, np.zeros(0, np.int64)
    lengths, nulls = [np.zeros(0, np.int64)], False
    for piece in _pieces(path, table, name):
        lengths.append(row_lengths(path, name, piece))
        values = piece.flatten()
        nulls = nulls or bool(values.null_count)
    return number_field(path, name, kind, whole=False, nulls=nulls), np.concatenate(lengths)


def _leaves(path: Path, kind: Arrow) -> int:
    """How many columns of numbers or bytes in the file make one column of the table."""
    pa = arrow(path)
    if isinstance(kind, pa.BaseExtensionType):
        return _leaves(path, kind.storage_type)
    if pa.types.is_dictionary(kind) or not pa.types.is_nested(kind):
        return 1
    return sum(_leaves(path, kind.field(i).type) for i in range(kind.num_fields))


def _scratch_bytes(footer: Footer, fields: Sequence[Field], lengths: Mapping[str, Ints]) -> int:
    """A column is read at a time: its pages, at most a whole chunk, and a batch of decoded rows."""
    batch = _BUFFER_BYTES
    for one in fields:
        of_lists = lengths.get(one.name)
        rows = 1 if of_lists is None else _BATCH_LISTS * int(of_lists.max(initial=0))
        batch = max(batch, rows * one.row_bytes)
    return 2 * footer.stored_bytes + footer.chunk_bytes + 2 * batch + _BUFFER_BYTES

"""Tables, as Parquet (`.parquet`) or text (`.csv`): a column is a field, a row is a sample.

Read through pyarrow, a row group or about a mebibyte of text at a time.
"""

from __future__ import annotations

from collections.abc import Mapping

from caudal.data.byte_file import ByteFile
from caudal.data.sample_files.base import Array, Part
from caudal.data.sample_files.table_groups import parquet_part, parquet_read
from caudal.data.sample_files.table_text import text_part, text_read


class TableReader:
    """Reads `.parquet` and `.csv`. See `SampleReader`."""

    suffixes = (".parquet", ".csv")

    def part(self, file: ByteFile, whole: bool) -> Part:
        """See `SampleReader.part`."""
        return parquet_part(file, whole) if _is_parquet(file) else text_part(file, whole)

    def read(self, file: ByteFile, part: Part, block: int, into: Mapping[str, Array]) -> None:
        """See `SampleReader.read`."""
        (parquet_read if _is_parquet(file) else text_read)(file, part, block, into)


def _is_parquet(file: ByteFile) -> bool:
    return file.name.lower().endswith(".parquet")

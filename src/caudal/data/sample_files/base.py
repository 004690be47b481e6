"""The contract of a reader of sample files: what a file holds, from its header; then its blocks.

Here a sample is what lies in the file: arrays under names (fields), not a patch that is cut out of an
image. A field is fixed (every sample has its shape) or ragged (the first axis differs from sample to
sample). In memory, the samples of a block follow each other along the first axis: fixed fields are stacked
to (N, *shape), ragged ones joined to (sum of rows, *shape[1:]).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from caudal.data.byte_file import ByteFile

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Field:
    """One array of a sample: `dtype` (native byte order), and the `shape` that every sample has.

    The first entry of `shape` is `None` where it differs from sample to sample (a ragged field). A scalar
    has the shape (). `categories` are the texts behind the numbers of a field that was text in the file.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...]
    categories: tuple[str, ...] = ()

    @property
    def ragged(self) -> bool:
        """Whether samples differ in length."""
        return bool(self.shape) and self.shape[0] is None

    @property
    def row_shape(self) -> tuple[int, ...]:
        """The fixed part of the shape: of a row if ragged, else of the whole sample."""
        return tuple(int(n) for n in (self.shape[1:] if self.ragged else self.shape) if n is not None)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row of a ragged field, else of a sample."""
        return math.prod(self.row_shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Part:
    """What one file says of itself; no sample was read for it.

    `rows[name]` has the length of each sample (int64, one entry a sample), for ragged fields alone. `ends`
    are the numbers of the first sample after each block; the last is the number of samples. `places[name]`
    is set for files in which the bytes lie as they do in memory (C order, native byte order): the offset
    of each sample's first byte, for every field; then nothing has to be decoded, and `ends` may say that
    every sample is a block. `checks` (blocks, fields) are the CRC-32 of each field's bytes, where the file
    has them; then `ends` says what they cover. `scratch_bytes` is the most that `read` holds beside its
    result, for one block. `left_out` are sentences about what of the file is not read. `extra[name]` are
    whole numbers that are known without reading, one a sample, and the texts behind them: a field that no
    block holds. `notes` are the reader's own, so that it need not look at the header again for every block.
    """

    fields: tuple[Field, ...]
    ends: Ints
    rows: Mapping[str, Ints] = field(default_factory=dict)
    places: Mapping[str, Ints] | None = None
    checks: npt.NDArray[np.uint32] | None = field(default=None, kw_only=True)
    scratch_bytes: int = 0
    codec: str = "raw"
    left_out: tuple[str, ...] = ()
    extra: Mapping[str, tuple[Array, tuple[str, ...]]] = field(default_factory=dict)
    notes: object = None

    @property
    def samples(self) -> int:
        """How many samples the file holds."""
        return int(self.ends[-1]) if len(self.ends) else 0


class SampleReader(Protocol):
    """What understands one family of sample files. It holds no state: threads share it."""

    suffixes: tuple[str, ...]

    def part(self, file: ByteFile, whole: bool) -> Part:
        """Read what the file says of itself. With `whole` the file is one sample, else its arrays' first axis
        counts samples (or the file is a list of them).

        Raises:
            UnreadableFile: broken, empty, of another format, or not made of numbers.
        """
        ...

    def read(self, file: ByteFile, part: Part, block: int, into: Mapping[str, Array]) -> None:
        """Decode block `block` into `into`: an array for each field, as large as the samples together.

        Never called for parts with `places`: their bytes are fetched as they are. Safe from several threads.

        Raises:
            UnreadableFile: the block is missing, truncated or broken.
        """
        ...


@runtime_checkable
class LoneReader(Protocol):
    """A `SampleReader` each of whose files is one sample in one block: it reads them without their parts.

    What a part would say is known from the index; to open and understand a file twice whenever its sample is
    wanted would take as long as some samples do.
    """

    def read_whole(self, name: str, data: bytes, into: Mapping[str, Array]) -> None:
        """Decode `data`, all bytes of the file `name`, into `into`, as `SampleReader.read` does.

        Raises:
            UnreadableFile: truncated, broken, or its sample has not the shapes of `into`.
        """
        ...


@runtime_checkable
class AlikeReader(Protocol):
    """A `SampleReader` of files that say the same of themselves if they begin alike and are of one size.

    An index of very many files then understands each kind of beginning once.
    """

    def alike_until(self, head: bytes, whole: bool) -> int:
        """How many of its first bytes decide, with its size, the part of a file that begins with `head`.

        0 where more than `head` has to be read.
        """
        ...

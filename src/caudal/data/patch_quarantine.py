"""The chunk of a visit and the places of its patches; what happens to chunks that cannot be read.

A broken chunk is tried again with its files opened anew, put on a list, counted, and replaced by another
chunk of its epoch, from which as many patches are cut. Which chunk, and where, follows from seed, epoch and
visit alone, and from which chunks can be read: so every thread, rank and resumed run takes the same one.
Single samples, which are replaced one by one, are `quarantine.py`'s.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from caudal.core.errors import DataError, TooManyBroken, UnreadableFile
from caudal.core.events import Event, SampleBroken
from caudal.core.messages import _
from caudal.core.seeds import integer
from caudal.data.broken import Broken
from caudal.data.chunk_reader import Chunk, ChunkReader, OpenFiles
from caudal.data.chunks import Chunks, Cutter
from caudal.data.order import EpochOrder, origins
from caudal.data.permutation import permute
from caudal.data.quarantine import DEFAULT_LIMIT
from caudal.data.visits import Visit

Ints = npt.NDArray[np.int64]

_EPOCHS_KEPT = 3  # threads may be in two epochs at once


@dataclass(frozen=True)
class Piece:
    """What was read for a visit: a chunk of `image`; `rows` and `cols` (patches,) of its patches in it."""

    chunk: Chunk
    image: int
    rows: Ints
    cols: Ints


def read_piece(cutter: Cutter, reader: ChunkReader, visit: Visit) -> Piece:
    """Read the chunk of a visit.

    Raises:
        UnreadableFile: it is broken.
        BadValues: its mask holds a value that is no class.
    """
    laid_out = visit.laid_out
    rows, cols = origins(cutter.seed, laid_out.epoch, laid_out.chunks, visit.number, cutter.patch_px)
    return Piece(reader.read(visit.image, visit.window), visit.image, rows, cols)


class PatchQuarantine:
    """Reads visits with care. Safe to use from several threads.

    `limit` is the largest share of an epoch's patches that may be broken, and of the files that may be
    unreadable from their headers on: (name, reason) of these are `unreadable`, and they are in no index.
    One patch and one file are always allowed.
    """

    def __init__(
        self,
        cutter: Cutter,
        limit: float = DEFAULT_LIMIT,
        tell: Callable[[Event], None] = lambda _event: None,
        unreadable: Sequence[tuple[str, str]] = (),
    ) -> None:
        """List the unreadable files.

        Raises:
            TooManyBroken: they are more than `limit` of all files.
        """
        self._cutter, self._limit, self._tell = cutter, limit, tell
        self._listed: dict[Broken, None] = {}  # in the order in which they were found
        self._broken: dict[int, set[int]] = {}  # epoch → visits
        self._lock = threading.Lock()
        for file, reason in unreadable:  # counted as one each: how many patches they hold, nobody knows
            self._list(Broken(file, 0, 0, reason), 1)
        total = len(cutter.members) + len(unreadable)
        if len(unreadable) > max(1, limit * total):
            file, reason = unreadable[-1]
            raise self._too_many(
                _("{count} of {total} files cannot be read, the last is {file}: {reason}"),
                len(unreadable), total, file, reason,
            )  # fmt: skip

    @property
    def broken(self) -> list[Broken]:
        """What could not be read so far; patches are numbered within their epoch, in the files' order."""
        with self._lock:
            return list(self._listed)

    def read(self, reader: ChunkReader, visit: Visit) -> Piece:
        """Read the chunk of a visit, or another in its place.

        Raises:
            TooManyBroken: more than `limit` of the epoch cannot be read.
            DataError: no chunk of the epoch can be read.
            BadValues: a mask holds a value that is no class.
        """
        laid_out, own = visit.laid_out, visit.number
        chunks, seed, patch_px = laid_out.chunks, self._cutter.seed, self._cutter.patch_px
        if chunk := self._try(reader, laid_out, own):
            rows, cols = origins(seed, laid_out.epoch, chunks, own, patch_px)
            return Piece(chunk, visit.image, rows, cols)
        for other in self._candidates(laid_out, own):
            if chunk := self._try(reader, laid_out, other):
                # A seed of its own: other places than those of the patches that are cut there anyhow.
                apart = integer(seed, "substitute patches", laid_out.epoch, own)
                as_many = replace(chunks, patches=np.full_like(chunks.patches, chunks.patches[own]))
                rows, cols = origins(apart, laid_out.epoch, as_many, other, patch_px)
                return Piece(chunk, int(chunks.image[other]), rows, cols)
        raise DataError(
            _("Sample {sample} in {file} cannot be read, and no other can stand in for it.").format(
                sample=_first(chunks, own), file=self._cutter.index.image(visit.image)
            ),
            _("Mend or remove the file."),
        )

    def _candidates(self, laid_out: EpochOrder, own: int) -> Iterator[int]:
        """The other visits of the epoch in a random order, each once."""
        count = len(laid_out.chunks)
        drawn = integer(self._cutter.seed, "substitute chunk", laid_out.epoch, own)
        for k in range(count):
            other = int(permute(np.array([k]), count, drawn, laid_out.epoch)[0])
            if other != own:
                yield other

    def _try(self, reader: ChunkReader, laid_out: EpochOrder, number: int) -> Chunk | None:
        with self._lock:
            if number in self._broken.get(laid_out.epoch, ()):
                return None
        image, window = int(laid_out.chunks.image[number]), laid_out.chunks.window(number)
        try:
            return reader.read(image, window)
        except UnreadableFile:  # perhaps the file was written again, or a disk away for a moment
            anew = replace(reader, files=OpenFiles())
        try:
            return anew.read(image, window)
        except UnreadableFile as error:
            self._put_away(laid_out, number, error)
            return None
        finally:
            anew.files.close()

    def _put_away(self, laid_out: EpochOrder, number: int, error: UnreadableFile) -> None:
        chunks, count = laid_out.chunks, int(laid_out.chunks.patches[number])
        with self._lock:
            kept = {e: v for e, v in self._broken.items() if e > laid_out.epoch - _EPOCHS_KEPT}
            visits = kept.setdefault(laid_out.epoch, set())
            self._broken = kept
            if number in visits:
                return
            visits.add(number)
            lost = int(chunks.patches[list(visits)].sum())
        first = _first(chunks, number)
        one = Broken(str(error.facts["path"]), first, first + count, error.message)
        self._list(one, count)
        total = self._cutter.samples
        if lost > max(1, self._limit * total):
            raise self._too_many(
                _("{count} of {total} samples cannot be read, the last in {file}: {reason}"),
                lost, total, one.file, one.reason,
            )  # fmt: skip

    def _list(self, one: Broken, count: int) -> None:
        with self._lock:
            if one in self._listed:  # an image that is one chunk breaks in every epoch
                return
            self._listed[one] = None
        self._tell(SampleBroken(one.file, one.first, count, one.reason))

    def _too_many(self, fact: str, count: int, total: int, file: str, reason: str) -> TooManyBroken:
        return TooManyBroken(
            fact.format(count=count, total=total, file=file, reason=reason),
            _("Mend the files, or allow more with broken_limit (now {limit}).").format(limit=self._limit),
            count=count,
            path=file,
        )


def _first(chunks: Chunks, c: int) -> int:
    """How many patches of the epoch come before chunk `c` in the files' order."""
    row, col = chunks.row, chunks.col
    above = (row < row[c]) | (row == row[c]) & (col < col[c])
    before = (chunks.image < chunks.image[c]) | (chunks.image == chunks.image[c]) & above
    return int(chunks.patches[before].sum())

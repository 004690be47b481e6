"""Which values stand in the masks of a set: every mask is read once, a window at a time.

For who needs classes and no statistics of the images; training looks at both, see `scan.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from caudal.core.errors import UnreadableFile
from caudal.core.geometry import Window
from caudal.core.units import Bytes
from caudal.data.chunk_reader import OpenFiles
from caudal.data.classes import count_values
from caudal.data.index import Index
from caudal.data.readers import reader_for
from caudal.data.readers.base import Header
from caudal.data.url import Location

_WINDOW_BYTES = 4 * 2**20
_COPIES = 4  # encoded, decoded, and its values sorted
_MOST_AT_ONCE = 256


@dataclass(frozen=True)
class _Job:
    path: Location
    window: Window
    nbytes: int


@dataclass(frozen=True)
class MaskValues:
    """How often each value stands in the masks; `pixel_bytes` of a decoded pixel of the widest one."""

    counts: Counter[int]
    pixel_bytes: int


def mask_values(index: Index, threads: int, ram: Bytes) -> MaskValues:
    """Read all masks, in about `ram` bytes.

    Windows that cannot be read are passed over: whoever reads them later has to say so.

    Raises:
        BadValues: a mask that is none.
        UnreadableFile: a mask's header is broken, or not one window of any mask can be read.
    """
    counts, pixel_bytes = Counter[int](), 1
    files, broken, seen = OpenFiles(), None, False

    def look(job: _Job) -> Counter[int] | UnreadableFile:
        try:
            mask_HW = files.read(job.path, job.window).x_HWC[:, :, 0]
        except UnreadableFile as error:  # without its traceback, which holds what was decoded so far
            return UnreadableFile(error.message, error.hint, path=str(error.facts["path"]))
        return count_values(mask_HW, job.path)

    try:
        with ThreadPoolExecutor(threads) as pool:
            for together in _together(_jobs(index), ram):
                pixel_bytes = max(pixel_bytes, *(job.nbytes // job.window.area_px for job in together))
                for found in pool.map(look, together):
                    if isinstance(found, UnreadableFile):
                        broken = found
                    else:
                        counts.update(found)
                        seen = True
    finally:
        files.close()
    if broken is not None and not seen:
        raise broken
    return MaskValues(counts, pixel_bytes)


def _jobs(index: Index) -> Iterator[_Job]:
    for i in range(len(index)):
        path = index.mask(i)
        if path is not None:
            header = reader_for(path).header(path)
            for window in _windows(header):
                yield _Job(path, window, window.area_px * header.pixel_bytes)


def _windows(header: Header) -> Iterator[Window]:
    """Windows of whole blocks that cover a mask, each of about `_WINDOW_BYTES`."""
    high, wide = header.block
    blocks = max(1, _WINDOW_BYTES // (high * wide * header.pixel_bytes))
    across = min(blocks, -(-header.width // wide))
    high, wide = high * (blocks // across), wide * across
    for row in range(0, header.height, high):
        for col in range(0, header.width, wide):
            yield Window(row, col, high, wide).clip(header.height, header.width)


def _together(jobs: Iterator[_Job], ram: Bytes) -> Iterator[list[_Job]]:
    """Jobs that may be done at once: as many as have room, and one at least."""
    group: list[_Job] = []
    held = 0
    for job in jobs:
        if group and (held + job.nbytes * _COPIES > ram or len(group) == _MOST_AT_ONCE):
            yield group
            group, held = [], 0
        group.append(job)
        held += job.nbytes * _COPIES
    if group:
        yield group

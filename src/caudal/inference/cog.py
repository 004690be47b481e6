"""Lays out the bytes of a Cloud-Optimized GeoTIFF: header, directories, then blocks, coarsest level first.

Does what the COG format asks for and GDAL's COG driver does, promises to readers included: every directory
before any block, blocks row by row, each between its size and a copy of its last four bytes. What the tags of
georeference, names and scales say is not known here; GDAL wrote them, and they are copied as they are.

Formats: "TIFF Revision 6.0" (Adobe, 1992), the BigTIFF proposal, and "COG driver" in GDAL's documentation.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from caudal.inference.blocks import FRAME_BYTES, Blocks

Array = npt.NDArray[Any]

SUBFILE, WIDTH, HEIGHT, OFFSETS, COUNTS = 254, 256, 257, 324, 325
REDUCED = 1
# Of a level, the overviews have what says how pixels are stored: bits, codec, colours, samples, planes,
# predictor, sides of a block, extra samples, sample format; and GDAL's nodata.
_OF_PIXELS = (258, 259, 262, 277, 284, 317, 322, 323, 338, 339, 42113)
_LAYOUT = (
    "LAYOUT=IFDS_BEFORE_DATA\nBLOCK_ORDER=ROW_MAJOR\nBLOCK_LEADER=SIZE_AS_UINT4\n"
    "BLOCK_TRAILER=LAST_4_BYTES_REPEATED\nKNOWN_INCOMPATIBLE_EDITION=NO\n "
)
_PROMISES = f"GDAL_STRUCTURAL_METADATA_SIZE={len(_LAYOUT):06} bytes\n{_LAYOUT}".encode()
LARGEST_CLASSIC = 2**32 - 1
_ASCII, _SHORT, _LONG, _DOUBLE, _LONG8 = 2, 3, 4, 12, 16
_TYPES = {
    kind: np.dtype(name)
    for kind, name in ((_ASCII, "S1"), (_SHORT, "<u2"), (_LONG, "<u4"), (_DOUBLE, "<f8"), (_LONG8, "<u8"))
}


@dataclass(frozen=True, slots=True)
class Tag:
    """A tag's type, by TIFF's number, and its values."""

    kind: int
    values: Array


Tags = Mapping[int, Tag]


def tags_of(tiff: bytes) -> dict[int, Tag]:
    """The tags of the first directory of a classic little-endian TIFF that we had written; checks nothing."""
    start, found = int.from_bytes(tiff[4:8], "little"), {}
    (count,) = struct.unpack_from("<H", tiff, start)
    for number in range(count):
        place = start + 2 + 12 * number
        code, kind, length = struct.unpack_from("<HHI", tiff, place)
        if length * _TYPES[kind].itemsize > 4:
            (place,) = struct.unpack_from("<I", tiff, place + 8)
        else:
            place += 8
        found[code] = Tag(kind, np.frombuffer(tiff, _TYPES[kind], length, place))
    return found


def write_cog(file: BinaryIO, tags: Tags, blocks: Blocks) -> int:
    """Write the whole file; how many bytes it has.

    `tags` are those of a TIFF with the same bands, codec and georeference; size and blocks are put in. Every
    block of every level must be there.

    Raises:
        OSError: without room, `ENOSPC`.
    """
    big = False
    head, end = _head(tags, blocks, big)
    if end > LARGEST_CLASSIC:
        big = True
        head, end = _head(tags, blocks, big)
    file.write(head)
    for level in reversed(range(len(blocks.sizes))):
        rows, cols = blocks.counts(level)
        for row in range(rows):
            for col in range(cols):
                file.write(blocks.framed(level, row, col))
    return end


def _head(tags: Tags, blocks: Blocks, big: bool) -> tuple[bytes, int]:
    """Everything before the first block, and where the last block ends."""
    # The size of the directories does not depend on what the offsets in them are.
    start = len(_directories(tags, blocks, big, None))
    places, end = _places(blocks, start)
    return _directories(tags, blocks, big, places), end


def _places(blocks: Blocks, start: int) -> tuple[list[Array], int]:
    """Where the blocks of each level lie when the first frame begins at `start`; where the last one ends."""
    places: list[Array] = []
    for level in reversed(range(len(blocks.sizes))):
        sizes = blocks.packed_bytes(level).ravel() + 2 * FRAME_BYTES
        ends = start + np.cumsum(sizes)
        places.insert(0, ends - sizes + FRAME_BYTES)
        start = int(ends[-1])
    return places, start


def _directories(tags: Tags, blocks: Blocks, big: bool, places: list[Array] | None) -> bytes:
    """The header and the directories of all levels, finest first, each with its values behind it."""
    word = 8 if big else 4
    out = bytearray(b"II\x2b\0\x08\0\0\0" if big else b"II\x2a\0")
    link = len(out)  # where the place of the next directory is told
    out += bytes(word) + _PROMISES
    for level, (height, width) in enumerate(blocks.sizes):
        kind = _LONG8 if big else _LONG
        sizes = blocks.packed_bytes(level).ravel()
        offsets = np.zeros_like(sizes) if places is None else places[level]
        entries = dict(tags) if level == 0 else {code: tags[code] for code in _OF_PIXELS if code in tags}
        entries |= {WIDTH: _number(width), HEIGHT: _number(height)}
        entries |= {OFFSETS: Tag(kind, offsets.astype(_TYPES[kind])), COUNTS: Tag(_LONG, sizes.astype("<u4"))}
        if level:
            entries[SUBFILE] = Tag(_LONG, np.array([REDUCED], "<u4"))
        out += bytes(-len(out) % word)
        out[link : link + word] = len(out).to_bytes(word, "little")
        link = _append(out, entries, word)
    return bytes(out) + bytes(-len(out) % word)


def _append(out: bytearray, entries: Tags, word: int) -> int:
    """Add a directory and its values; where the place of the next directory belongs."""
    count_bytes = 8 if word == 8 else 2
    value_place = len(out) + count_bytes + len(entries) * (4 + 2 * word) + word
    out += len(entries).to_bytes(count_bytes, "little")
    values = bytearray()
    for code, tag in sorted(entries.items()):
        raw = tag.values.tobytes()
        out += code.to_bytes(2, "little") + tag.kind.to_bytes(2, "little")
        out += len(tag.values).to_bytes(word, "little")
        if len(raw) <= word:
            out += raw.ljust(word, b"\0")
        else:
            out += (value_place + len(values)).to_bytes(word, "little")
            values += raw + bytes(-len(raw) % word)
    link = len(out)
    out += bytes(word) + values
    return link


def _number(value: int) -> Tag:
    kind = _SHORT if value < 2**16 else _LONG
    return Tag(kind, np.array([value], _TYPES[kind]))

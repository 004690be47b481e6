"""What a TIFF's tags mean for reading pixels: shape, type, codec, and where each block lies.

The index of blocks is packed numpy, checked against the file's size, so that a truncated or lying file is
refused before its first pixel. What the native decoder does not cover is `Foreign`, and goes to GDAL.

Block layout follows "TIFF Revision 6.0", §§8, 13-15; LERC's private tag is 50674.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from caudal.core.messages import _
from caudal.data.readers.base import MAX_BANDS, Header, check_size
from caudal.data.readers.tiff_gdal_tags import band_names, nodata_value
from caudal.data.readers.tiff_jpeg import frame_of, tables_of
from caudal.data.readers.tiff_lerc import PACKINGS
from caudal.data.readers.tiff_tags import Directory, ReadInto, main_directory
from caudal.data.unreadable import unreadable
from caudal.data.url import Location

RAW, JPEG, LERC, WEBP = 1, 7, 34887, 50001
# Codecs whose blocks are pictures with headers of their own; no predictor applies to them.
PICTURES = (JPEG, LERC, WEBP)
CODECS = {RAW: "none", 5: "lzw", JPEG: "jpeg", 8: "deflate", 32946: "deflate", 32773: "packbits",
          LERC: "lerc", 50000: "zstd", WEBP: "webp"}  # fmt: skip

# No honest block of that codec grows more than this when decoded; a larger claim is refused unallocated. LZW
# clears its table of 4094 strings when it is full; JPEG spends two bits on a unit of 8×8; what is all of one
# value takes LERC 70 bytes whatever its size.
_MOST_GROWTH = {RAW: 1, 5: 1400, 8: 1040, 32946: 1040, 32773: 65, 50000: 45_000, JPEG: 256, LERC: 2**21,
                WEBP: 2**18}  # fmt: skip

_KINDS = {1: "u", 2: "i", 3: "f", 4: "u"}  # SampleFormat → numpy kind
_GREY_RGB_PALETTE_INKS = (0, 1, 2, 3, 5)  # photometric values whose samples are stored as they are read
_ALPHA = (1, 2)  # ExtraSamples values
_RAW_PIECE_BYTES = 256 * 1024
_JPEG_HEAD_BYTES = 4096
_JPEG_TABLES_BYTES = 2**16

Counts = npt.NDArray[np.int64]


class Foreign(Exception):
    """A TIFF that the native decoder does not cover; GDAL may."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the blocks of one image lie and how they are coded.

    `offsets` and `counts` are int64 arrays of shape (planes, block rows, block columns), in bytes; a count of
    0 is a block that was never written. `block` is in pixels, `samples` counts alpha. The last two are a
    codec's own: JPEG's shared tables, and what LERC blobs are packed in.
    """

    path: Location
    size_bytes: int
    byteorder: str
    height: int
    width: int
    samples: int
    dtype: np.dtype[Any]
    sample_format: int
    codec: int
    predictor: int
    tiled: bool
    block: tuple[int, int]
    offsets: Counts
    counts: Counts
    band_names: tuple[str, ...]
    nodata: float | None
    has_alpha: bool
    jpeg_tables: bytes
    lerc_packing: int

    @property
    def planes(self) -> int:
        """How many planes the samples are stored in: 1, or one each."""
        return int(self.offsets.shape[0])

    @property
    def plane_samples(self) -> int:
        """Samples that lie side by side in a block."""
        return self.samples // self.planes

    @property
    def block_bytes(self) -> int:
        """Decoded bytes of a whole block."""
        return self.block[0] * self.block[1] * self.plane_samples * self.dtype.itemsize

    def header(self) -> Header:
        """What the file says of itself, without the index."""
        return Header(
            path=self.path,
            height=self.height,
            width=self.width,
            bands=self.samples - self.has_alpha,
            dtype=self.dtype,
            block=self.block,
            codec=CODECS[self.codec] + PACKINGS[self.lerc_packing],
            band_names=self.band_names,
            nodata=self.nodata,
            has_alpha=self.has_alpha,
            size_bytes=self.size_bytes,
        )


def read_layout(read: ReadInto, path: Location, size_bytes: int) -> Layout:
    """The layout of the first full-resolution image of an open file, whose bytes `read` gives.

    Raises:
        Foreign: a TIFF that is not covered here.
        UnreadableFile: no TIFF, truncated, or claims that cannot be true.
    """
    tags = main_directory(read, path, size_bytes)
    width, height = tags.integer(256, 0), tags.integer(257, 0)
    samples = tags.integer(277, 1)
    dtype, sample_format = _sample_type(tags, samples)
    codec, predictor = tags.integer(259, 1), tags.integer(317, 1)
    tiled = tags.has(322)
    separate = tags.integer(284, 1) == 2 and samples > 1
    block = (tags.integer(323, 0), tags.integer(322, 0)) if tiled else (_rows_per_strip(tags, height), width)
    _refuse_foreign(tags, codec, predictor, dtype, tiled)
    check_size(path, height, width, samples, dtype, (1, 1))
    grid = (
        samples if separate else 1,
        math.ceil(height / max(1, block[0])),
        math.ceil(width / max(1, block[1])),
    )
    offsets, counts = _index(tags, tiled, grid)
    if codec == RAW and not tiled:
        pixel_bytes = dtype.itemsize * (1 if separate else samples)
        block, offsets, counts = _raw_pieces(tags, offsets, counts, height, width, block[0], pixel_bytes)
    check_size(path, height, width, 1 if separate else samples, dtype, block)
    extra = tags.integers(338, MAX_BANDS)
    has_alpha = samples > 1 and len(extra) > 0 and extra[-1] in _ALPHA
    layout = Layout(
        path=path,
        size_bytes=size_bytes,
        byteorder=tags.byteorder,
        height=height,
        width=width,
        samples=samples,
        dtype=dtype,
        sample_format=sample_format,
        codec=codec,
        predictor=predictor,
        tiled=tiled,
        block=block,
        offsets=_frozen(offsets),
        counts=_frozen(counts),
        band_names=band_names(tags, samples - has_alpha),
        nodata=nodata_value(tags, dtype),
        has_alpha=has_alpha,
        jpeg_tables=tables_of(tags.array(347, _JPEG_TABLES_BYTES).tobytes()) if codec == JPEG else b"",
        lerc_packing=_lerc_packing(tags) if codec == LERC else 0,
    )
    _check_index(layout)
    if tiled and (block[0] % 16 or block[1] % 16):  # only now, as GDAL allocates what they claim
        raise Foreign
    _refuse_foreign_pictures(tags, layout)
    return layout


def _sample_type(tags: Directory, samples: int) -> tuple[np.dtype[Any], int]:
    bits, formats = tags.integers(258, MAX_BANDS), tags.integers(339, MAX_BANDS)
    if len(set(bits)) != 1 or len(set(formats)) > 1:
        raise Foreign
    sample_format = formats[0] if formats else 1
    kind, size_bits = _KINDS.get(sample_format), bits[0]
    if kind is None or size_bits not in (8, 16, 32, 64) or (kind == "f" and size_bits == 8):
        raise Foreign
    return np.dtype(f"{kind}{size_bits // 8}"), 1 if kind == "u" else sample_format


def _refuse_foreign(tags: Directory, codec: int, predictor: int, dtype: np.dtype[Any], tiled: bool) -> None:
    predicted = codec in (5, 8, 32946, 50000)
    covered = (
        codec in CODECS
        and tags.integer(262, 1) in _GREY_RGB_PALETTE_INKS
        and tags.integer(266, 1) == 1  # the order of bits in a byte
        and (not predicted or predictor in (1, 2) or (predictor == 3 and dtype.kind == "f"))
        and tags.has(324 if tiled else 273)
        and tags.has(325 if tiled else 279)
        and tags.integer(32997, 1) == 1  # no stack of slices
    )
    if not covered:
        raise Foreign


def _refuse_foreign_pictures(tags: Directory, layout: Layout) -> None:
    """What the tags of a picture codec leave open, and of JPEG its first block alone tells.

    Raises:
        Foreign: a kind of it that is not covered here.
    """
    codec, samples, dtype = layout.codec, layout.plane_samples, layout.dtype
    # LERC has its own order of bytes, and libtiff swaps them nevertheless, as it did when it wrote.
    swapped = tags.byteorder == ">" and dtype.itemsize > 1
    if codec == LERC and (swapped or dtype.name in ("uint64", "int64", "float16")):
        raise Foreign
    if codec in (JPEG, WEBP) and dtype != np.uint8:
        raise Foreign
    if codec == WEBP and samples not in (3, 4):
        raise Foreign
    written = np.flatnonzero(layout.counts)
    if codec == JPEG and len(written):
        head = bytearray(min(_JPEG_HEAD_BYTES, int(layout.counts.flat[written[0]])))
        tags.read(int(layout.offsets.flat[written[0]]), memoryview(head))
        frame = frame_of(bytes(head))
        if frame is None or not frame.decodes_here(samples):
            raise Foreign


def _lerc_packing(tags: Directory) -> int:
    version_and_packing = tags.integers(50674, 2)
    if len(version_and_packing) < 2 or version_and_packing[1] not in PACKINGS:
        raise Foreign
    return version_and_packing[1]


def _rows_per_strip(tags: Directory, height: int) -> int:
    rows = tags.integer(278, height)
    return min(rows, height) if rows > 0 else height


def _index(tags: Directory, tiled: bool, grid: tuple[int, int, int]) -> tuple[Counts, Counts]:
    expected = math.prod(grid)
    arrays = []
    for code in (324, 325) if tiled else (273, 279):
        values = tags.array(code, expected)
        if values.dtype.kind not in "iu" or len(values) < expected:
            raise unreadable(
                tags.path,
                _("its header needs {expected} blocks and lists {count}").format(
                    expected=expected, count=len(values)
                ),
            )
        if values.dtype == np.uint64 and bool((values > np.iinfo(np.int64).max).any()):
            raise unreadable(tags.path, _("a block lies beyond the end of the file"))
        arrays.append(values[:expected].astype(np.int64).reshape(grid))
    return arrays[0], arrays[1]


def _raw_pieces(
    tags: Directory, offsets: Counts, counts: Counts, height: int, width: int, rows: int, pixel_bytes: int
) -> tuple[tuple[int, int], Counts, Counts]:
    """Uncompressed strips, joined where they lie end to end and cut again to pieces of a useful size.

    Writers store a whole image as one strip, or each row as one; neither should decide how much is read.
    """
    row_bytes = width * pixel_bytes
    rows_of = np.minimum(rows, height - rows * np.arange(offsets.shape[1], dtype=np.int64))
    needed = (rows_of * row_bytes)[None, :, None]
    if (counts == 0).any():
        return (rows, width), offsets, counts
    if (counts < needed).any():
        raise unreadable(tags.path, _("a strip is shorter than its rows"))
    adjacent = bool((np.diff(offsets, axis=1) == needed[:, :-1]).all())
    target = max(1, _RAW_PIECE_BYTES // row_bytes)
    if adjacent:
        rows = min(height, target)
    else:
        cut = math.gcd(rows, 2 ** int(math.log2(target)))
        if rows <= target or cut == rows:
            return (rows, width), offsets, np.broadcast_to(needed, counts.shape).copy()
        offsets = (offsets + np.arange(rows // cut) * cut * row_bytes).reshape(offsets.shape[0], -1, 1)
        offsets = offsets[:, : math.ceil(height / cut)]
        rows = cut
    pieces = math.ceil(height / rows)
    starts = np.arange(pieces, dtype=np.int64) * rows
    if adjacent:
        offsets = offsets[:, :1] + (starts * row_bytes)[None, :, None]
    sizes = np.minimum(rows, height - starts) * row_bytes
    return (rows, width), offsets, np.broadcast_to(sizes[None, :, None], offsets.shape).copy()


def _check_index(layout: Layout) -> None:
    """Refuse blocks beyond the end of the file, and blocks too small to hold what they claim."""
    offsets, counts = layout.offsets, layout.counts
    written = counts > 0
    if bool((offsets[written] > layout.size_bytes - counts[written]).any()) or bool((counts < 0).any()):
        raise unreadable(layout.path, _("it is truncated: a block lies beyond the end of the file"))
    if not written.any():
        return
    if layout.codec != RAW and int(counts.max()) > 2 * layout.block_bytes + 2**16:
        raise unreadable(layout.path, _("a block is longer in the file than any codec makes it"))
    rows = layout.block[0]
    if not layout.tiled:  # the last strip may be as short as one row
        rows = layout.height - (math.ceil(layout.height / rows) - 1) * rows
    least = layout.block_bytes // layout.block[0] * rows
    if int(counts[written].min()) * _MOST_GROWTH[layout.codec] < least:
        raise unreadable(layout.path, _("a block is too short for the pixels it should hold"))


def _frozen(array: Counts) -> Counts:
    array.setflags(write=False)
    return array

"""A TIFF's JPEG blocks: what a block's header says, and its pixels by libjpeg-turbo. Knows no other tag.

Only what every libjpeg decodes alike comes here: samples as they are stored, 8 bits, Huffman coding, no
component smaller than the others. YCbCr does not: libjpeg and libjpeg-turbo turn it to RGB with constants
that differ in the last digit, and spread small components otherwise; there GDAL's pixels are GDAL's to make.

Streams follow ITU-T T.81 (JPEG), annex B; tables apart from the blocks "TIFF Technical Note 2" (1995); the
marker that says how colours are coded ITU-T T.872, §6.5.3.
"""

from __future__ import annotations

from dataclasses import dataclass

import simplejpeg

from caudal.core.messages import _
from caudal.data.readers.base import Array

_START, _SCAN = b"\xff\xd8", b"\xff\xda"
_AS_STORED = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"  # no colour transform
_QUANTIZATION, _HUFFMAN, _RESTART = 0xDB, 0xC4, 0xDD
_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_HUFFMAN_IN_ONE_PASS = (0xC0, 0xC1)

# By samples: the names of what is decoded to, so that nothing is converted.
SPACES = {1: "GRAY", 3: "RGB", 4: "CMYK"}


@dataclass(frozen=True, slots=True)
class Frame:
    """What a JPEG stream says of its picture; `head` holds the parts of its header that decoding needs."""

    height: int
    width: int
    samples: int
    plain: bool
    head: bytes
    scan: int  # where in the stream the first scan begins

    def decodes_here(self, samples: int) -> bool:
        """Whether a block of so many samples may look like this and be decoded here."""
        return self.plain and self.samples == samples and samples in SPACES


def frame_of(data: bytes) -> Frame | None:
    """The header of a stream that begins with `data`; None where it is broken or does not end in `data`."""
    if not data.startswith(_START):
        return None
    shape: tuple[int, int, int, bool] | None = None
    kept: list[bytes] = []
    at = len(_START)
    while at + 4 <= len(data) and data[at] == 0xFF:
        code = data[at + 1]
        if code == 0xFF:  # filling
            at += 1
            continue
        if code == _SCAN[1]:
            return Frame(*shape, b"".join(kept), at) if shape else None
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4])
        body = data[at + 4 : end]
        if code in _FRAMES:
            if shape or len(body) < 6 or len(body) != 6 + 3 * body[5]:
                return None
            plain = code in _HUFFMAN_IN_ONE_PASS and body[0] == 8 and set(body[7::3]) == {0x11}
            shape = int.from_bytes(body[1:3]), int.from_bytes(body[3:5]), body[5], plain
        if code in _FRAMES or code in (_QUANTIZATION, _HUFFMAN, _RESTART):
            kept.append(data[at:end])
        at = end
    return None


def tables_of(data: bytes) -> bytes:
    """The quantization and Huffman tables of the JPEGTables tag, without what stands around them."""
    kept: list[bytes] = []
    at = len(_START)
    while at + 4 <= len(data) and data[at] == 0xFF:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4])
        if data[at + 1] in (_QUANTIZATION, _HUFFMAN):
            kept.append(data[at:end])
        at = end
    return b"".join(kept)


def decode_jpeg(block: bytes, tables: bytes, shape: tuple[int, int, int], rows: int) -> Array:
    """The pixels of a block: uint8 (height, width, samples).

    `shape` is that of a whole block; a strip at the lower edge may have no more than `rows` rows. What the
    decoder has to mend is refused, as it makes up pixels.

    Raises:
        ValueError: another size or kind than that, truncated, or damaged; the message is a clause.
    """
    frame = frame_of(block)
    if frame is None:
        raise ValueError(_("its JPEG header is damaged"))
    if not frame.decodes_here(shape[2]) or block.count(_SCAN, frame.scan) > shape[2]:
        raise ValueError(_("it is coded otherwise than the first block"))
    if frame.width != shape[1] or frame.height not in (shape[0], rows):
        raise ValueError(_("it decodes to another size"))
    # A decoder guesses from application markers how colours are coded, where the TIFF's tags rule.
    stream = b"".join((_START, _AS_STORED, tables, frame.head, memoryview(block)[frame.scan :]))
    x_HWC: Array = simplejpeg.decode_jpeg(stream, colorspace=SPACES[shape[2]])
    return x_HWC[:rows]

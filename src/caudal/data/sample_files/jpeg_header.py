"""The header of a JPEG: its segments up to where the first scan's data begin (ITU-T T.81, annex B).

No pixel is decoded here, and what a header may claim is judged elsewhere. Segments that say nothing of size,
scans or orientation are stepped over, not read: this is done anew for every picture that is decoded.
"""

from __future__ import annotations

import re
import struct
from typing import BinaryIO

from caudal.core.geometry import round_up
from caudal.core.messages import _
from caudal.data.sample_files.picture_header import BrokenPicture, PictureHeader

# Each is a segment, or a byte between segments. A hostile file could have a billion of them.
_MOST_STEPS = 2**16
_SCAN, _NOTE = 0xDA, 0xE1
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = frozenset((0xC2, 0xC6, 0xCA, 0xCE))
# Tables, and notes of programs; those with an interest of their own left out.
_STEPPED_OVER = frozenset((0xC4, 0xCC, *range(0xDB, 0xF0), 0xFE)) - {_NOTE}
_BARE = frozenset((0x00, *range(0xD0, 0xDA)))  # no segment follows: restarts, start and end of the picture
_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_ORIENTATION = 0x0112
_SHORT, _LONG = 3, 4  # kinds of numbers in EXIF
_ORIENTATION_IN_XMP = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')


def read_jpeg_header(stream: BinaryIO) -> PictureHeader:
    """Read the segments of `stream`, which is a JPEG from its offset 0 on.

    Raises:
        BrokenPicture: it ends before its first scan's data begin.
        ValueError, struct.error: a segment is broken, or of a kind that no decoder here knows.
    """
    frame, kind_of_frame, exif, xmp = b"", 0, b"", b""
    seek, read = stream.seek, stream.read
    at = 2  # behind the marker that starts a picture
    for _step in range(_MOST_STEPS):
        seek(at)
        head = read(4)
        if len(head) < 4:
            raise _too_short()
        kind = head[1]
        if (
            head[0] != 0xFF or kind == 0xFF
        ):  # padding, or bytes of nothing: decoders say what they think of it
            at += 1
            continue
        if kind in _BARE:
            at += 2
            continue
        body_bytes = (head[2] << 8 | head[3]) - 2
        if body_bytes < 0:
            raise ValueError(f"an impossible segment FF {kind:02X}")
        at += 4 + body_bytes
        if kind in _STEPPED_OVER:
            continue
        body = read(body_bytes)
        if len(body) < body_bytes:
            raise _too_short()
        if kind == _SCAN:
            return _header(frame, kind_of_frame in _PROGRESSIVE, body, at, _orientation(exif, xmp))
        if kind in _FRAMES:
            frame, kind_of_frame = body, kind
        elif kind != _NOTE:
            raise ValueError(f"unknown marker FF {kind:02X}")
        elif body.startswith(_EXIF):
            exif = exif or body[len(_EXIF) :]
        elif body.startswith(_XMP):
            xmp = body
    raise ValueError(f"no scan among the first {_MOST_STEPS} segments")


def _too_short() -> BrokenPicture:
    return BrokenPicture(_("it ends before its pixels begin"))


def _header(frame: bytes, progressive: bool, scan: bytes, scan_end: int, orientation: int) -> PictureHeader:
    if not frame:
        raise ValueError("a scan before any size")
    bits, height, width, components = struct.unpack_from(">BHHB", frame)
    if bits != 8:
        raise ValueError(f"{bits} bits a sample")
    if components not in (1, 3, 4) or len(frame) != 6 + 3 * components:
        raise ValueError(f"{components} components")
    if not height or not width:
        raise ValueError(f"{height}×{width} pixels")
    sampling = [(factors >> 4, factors & 15) for factors in frame[7::3]]
    if not all(1 <= across <= 4 and 1 <= down <= 4 for across, down in sampling):
        raise ValueError("impossible sampling factors")
    # One scan that has every component is decoded as it comes; else all is kept until the last came.
    one_scan = not progressive and len(scan) == 4 + 2 * components and scan[0] == components
    return PictureHeader(
        "jpeg",
        (height, width),
        orientation,
        samples=4 if components == 4 else 3,
        coefficient_bytes=0 if one_scan else _coefficient_bytes(height, width, sampling),
        scan_end=0 if progressive else scan_end,
    )


def _coefficient_bytes(height: int, width: int, sampling: list[tuple[int, int]]) -> int:
    """Two bytes for each sample of each component, in whole units of 8×8 times the sampling factors."""
    across, down = (max(factors) for factors in zip(*sampling, strict=True))
    units: int = round_up(height, 8 * down) // down * (round_up(width, 8 * across) // across)
    return 2 * units * sum(h * v for h, v in sampling)


def _orientation(exif: bytes, xmp: bytes) -> int:
    """What EXIF says, else XMP; 1 where neither does, or it is nonsense: a broken note breaks no picture."""
    value = _orientation_in_exif(exif) if exif else None
    if value is None and xmp:
        found = _ORIENTATION_IN_XMP.search(xmp)
        value = int(found[1]) if found else None
    return value if value is not None and 1 <= value <= 8 else 1


def _orientation_in_exif(exif: bytes) -> int | None:
    """The number in the first directory; 0 if it is no number, `None` if there is none."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return None
    try:
        (start,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, start)
        for at in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, numbers = struct.unpack_from(order + "HHI", exif, at)
            if tag == _ORIENTATION:
                code = {_SHORT: "H", _LONG: "I"}.get(kind)
                found = struct.unpack_from(order + code, exif, at + 8) if code and numbers == 1 else (0,)
                return int(found[0])
    except struct.error:  # it ends before its directory does
        pass
    return None

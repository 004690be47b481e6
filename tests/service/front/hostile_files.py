"""Files that mean harm: TIFFs, pictures, arrays and archives that lie, and bombs that are what they say.

A bomb is whole and real: deflated zeros, a thousand times as large unpacked as packed. Seeded.
"""

from __future__ import annotations

import io
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from functools import cache

MIB = 2**20
_SIDE_PX = 256


def tiff(draw: random.Random) -> bytes:
    """A TIFF whose tags are anything."""
    values = [0, 1, 8, 255, 2**16, 2**31, 2**32 - 1]
    tags = [
        (tag, draw.choice([3, 4, 4, 4, 16]), draw.choice([1, 1, 1, 2, 2**20, 2**31]), draw.choice(values))
        for tag in (256, 257, 258, 259, 262, 273, 277, 278, 279, 322, 323, 324, 325, 330, 339)
        if draw.random() < 0.9
    ]
    body = struct.pack("<H", draw.choice([len(tags), 65535, 0]))
    body += b"".join(struct.pack("<HHII", *tag) for tag in tags) + struct.pack("<I", draw.choice([0, 8]))
    return draw.choice([b"II*\0", b"MM\0*", b"II+\0"]) + struct.pack("<I", 8) + body + draw.randbytes(200)


def png(draw: random.Random) -> bytes:
    """A PNG that says it is huge."""
    head = struct.pack(">II", draw.choice([1, 2**31 - 1, 60000]), draw.choice([1, 60000])) + draw.randbytes(5)
    return _PNG + _chunk(b"IHDR", head, draw.choice([13, 2**31])) + draw.randbytes(100)


def npy(draw: random.Random) -> bytes:
    """An array whose header lies."""
    shape = draw.choice(["(1,)", "(2**60,)", "(10**12,)", "(-1,)", "(1,)*50", "()"])
    kind = draw.choice(["<f4", "|O", "<U9999", "V8"])
    head = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}"
    length = struct.pack("<H", draw.choice([118, 65535]))
    return b"\x93NUMPY\x01\x00" + length + head.encode().ljust(117) + b"\n1234"


def noise(draw: random.Random) -> bytes:
    """The beginning of some format, and then nothing of it."""
    head = draw.choice([b"", b"PAR1", b"PK\x03\x04", b"\xff\xd8\xff", b"II*\0", b"\x89PNG\r\n\x1a\n"])
    return head + draw.randbytes(draw.choice([0, 7, 500])) + draw.choice([b"", b"PAR1"])


def archive(draw: random.Random, parts: list[str]) -> bytes:
    """A zip of odd names, with some bytes of it changed."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
        for number in range(draw.randint(1, 4)):
            name = draw.choice([*parts, f"a{number}.csv", f"b{number}.png"]) or "x"
            content = b"0" * draw.choice([10, 10, 3 * MIB])
            if "\0" not in name:
                made.writestr(f"{number}{name}" if draw.random() < 0.5 else name, content)
    content = bytearray(file.getvalue())
    for _n in range(draw.randint(0, 6)):
        content[draw.randrange(len(content))] = draw.randrange(256)
    return bytes(content)


@cache
def zip_bombs() -> dict[str, bytes]:
    """Archives that unpack to more than anybody wants, honestly and not, under names of their own."""
    large, small = _zeros(300 * MIB), _zeros(MIB)
    return {
        "above the ratio": _zip([("a.csv", large, None, None)]),
        "above the ratio together": _zip([(f"{k}.csv", small, None, None) for k in range(300)]),
        "says less": _zip([("a.csv", large, 1000, None)]),
        "one for all": _zip(
            [("0.csv", small, None, None), *((f"{k}.csv", small, None, 0) for k in range(1, 150))]
        ),
        "below the ratio": _zip([("a.csv", _zeros(100 * MIB), None, None)]),
        "in an archive": _zip([("a.npz", _packed(file_bombs()["a.npz"]), None, None)]),
    }


@cache
def file_bombs() -> dict[str, bytes]:
    """Rasters, pictures and arrays that are whole, and huge once decoded, under their names."""
    return {
        "strip_above.tif": _tiff_of_strip(17_000),
        "strip_below.tif": _tiff_of_strip(15_000),
        "tiles.tif": _tiff_of_tiles(60_000),
        "above.png": _png_of(20_000),
        "below.png": _png_of(13_000),
        "a.npz": _zip([("x.npy", _array(400 * MIB), None, None)]),
    }


Deflated = tuple[bytes, int, int, int]
"""Raw deflate, CRC-32, Adler-32, bytes unpacked."""
_PNG = b"\x89PNG\r\n\x1a\n"


_LAST = b"\x03\x00"  # an empty block of raw deflate, the last one


def _packed(content: bytes) -> Deflated:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(content) + packer.flush()
    return packed, zlib.crc32(content), zlib.adler32(content), len(content)


@cache
def _zeros(count: int, before: bytes = b"") -> Deflated:
    """Zeros after a few bytes, deflated piece by piece, so that making them costs no more than their sums."""
    piece = bytes(MIB)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(piece) + packer.flush(zlib.Z_FULL_FLUSH)
    other = zlib.compressobj(9, zlib.DEFLATED, -15)
    head = other.compress(before + bytes(count % MIB)) + other.flush(zlib.Z_FULL_FLUSH)
    crc, adler = zlib.crc32(before + bytes(count % MIB)), zlib.adler32(before + bytes(count % MIB))
    for _n in range(count // MIB):
        crc, adler = zlib.crc32(piece, crc), zlib.adler32(piece, adler)
    return head + packed * (count // MIB) + _LAST, crc, adler, count + len(before)


def _zlib(content: Deflated) -> bytes:
    return b"\x78\xda" + content[0] + struct.pack(">I", content[2])


def _array(count: int) -> Deflated:
    head = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({count},), }}".encode().ljust(117) + b"\n"
    return _zeros(count, b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + head)


def _zip(entries: list[tuple[str, Deflated, int | None, int | None]]) -> bytes:
    """Names, contents, the sizes that are claimed where they are not true, and whose data they share."""
    parts, directory, places = list[bytes](), b"", list[int]()
    for name, (packed, crc, _adler, size), said, shared in entries:
        about = struct.pack(
            "<HHHHHIIIHH", 20, 0, 8, 0, 33, crc, len(packed), size if said is None else said, len(name), 0
        )
        place = sum(map(len, parts)) if shared is None else places[shared]
        if shared is None:
            parts.append(b"PK\x03\x04" + about + name.encode() + packed)
        places.append(place)
        tail = struct.pack("<HHHII", 0, 0, 0, 0, place)
        directory += b"PK\x01\x02" + struct.pack("<H", 20) + about + tail + name.encode()
    body = b"".join(parts)
    count = len(entries)
    return (
        body
        + directory
        + b"PK\x05\x06"
        + struct.pack("<HHHHIIH", 0, 0, count, count, len(directory), len(body), 0)
    )


def _tiff_with(tags: list[tuple[int, int, int, int]], data: bytes) -> bytes:
    """`data` lies at byte 8, the tags (number, type, count, value) behind it."""
    body = (
        struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags)) + bytes(4)
    )
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + body


def _tiff_of_strip(side: int) -> bytes:
    """All of it is one strip."""
    data = _zlib(_zeros(side * side))
    data += bytes(len(data) % 2)
    tags = [(256, side), (257, side), (258, 8), (259, 8), (262, 1), (273, 8), (277, 1), (278, side)]
    return _tiff_with([*((tag, 4, 1, value) for tag, value in tags), (279, 4, 1, len(data))], data)


def _tiff_of_tiles(side: int) -> bytes:
    """Tens of thousands of tiles that share their bytes."""
    tile = _zlib(_zeros(_SIDE_PX * _SIDE_PX))
    tile += bytes(len(tile) % 2)
    count = (-(-side // _SIDE_PX)) ** 2
    data = tile + struct.pack("<I", 8) * count + struct.pack("<I", len(tile)) * count
    first = 8 + len(tile)
    plain = [
        (256, side),
        (257, side),
        (258, 8),
        (259, 8),
        (262, 1),
        (277, 1),
        (322, _SIDE_PX),
        (323, _SIDE_PX),
    ]
    tags = [
        *((tag, 4, 1, value) for tag, value in plain),
        (324, 4, count, first),
        (325, 4, count, first + 4 * count),
    ]
    return _tiff_with(tags, data)


def _png_of(side: int) -> bytes:
    """Grey, and nothing else."""
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    data = _zlib(_zeros(side * (side + 1)))
    return _PNG + _chunk(b"IHDR", head) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, content: bytes, said: int | None = None) -> bytes:
    count = len(content) if said is None else said
    return struct.pack(">I", count) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


LYING: list[Callable[[random.Random], bytes]] = [tiff, png, noise, npy]

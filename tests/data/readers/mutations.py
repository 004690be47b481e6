"""Broken copies of honest files: bytes changed at random, and the tags of TIFFs made to lie."""

from __future__ import annotations

import struct

import numpy as np

_CODECS = (0, 1, 2, 5, 6, 7, 8, 32773, 32946, 34712, 34887, 34925, 50000, 50001, 50002, 65535)
_NUMBERS = (0, 1, 2, 3, 7, 8, 15, 16, 17, 64, 255, 1000, 4095, 2**15, 65535, 2**16, 2**20, 2**24, 2**31 - 1,
            2**31, 2**32 - 1, 2**40, 2**63, 2**64 - 1)  # fmt: skip
# Tags whose lies go furthest: sizes, codec, samples, offsets, counts, blocks, predictor, JPEG, LERC.
_TAGS = (256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 317, 322, 323, 324, 325, 338, 339, 347, 530,
         42112, 42113, 50674)  # fmt: skip


def mutated(whole: bytes, random: np.random.Generator) -> bytes:
    """Bytes flipped near the head or anywhere, a run overwritten, a piece cut out, or the end cut off."""
    raw = bytearray(whole)
    kind = int(random.integers(0, 5))
    reach = len(raw) if kind else min(len(raw), 700)
    if kind < 3:
        for place in random.integers(0, reach, int(random.integers(1, 9))):
            raw[place] = int(random.integers(0, 256))
    elif kind == 3:
        start = int(random.integers(0, len(raw)))
        raw[start : start + 40] = random.bytes(int(random.integers(0, 60)))
    else:
        del raw[int(random.integers(0, len(raw))) :]
    return bytes(raw)


def lying(whole: bytes, random: np.random.Generator) -> bytes:
    """A TIFF, one to three entries of whose first directory say something else; another file is `mutated`."""
    entries = _entries(whole)
    if not entries:
        return mutated(whole, random)
    raw = bytearray(whole)
    order, word = ("<" if whole[:2] == b"II" else ">"), (8 if whole[2:4] in (b"+\0", b"\0+") else 4)
    likely = [place for code, place in entries.items() if code in _TAGS]
    for _ in range(int(random.integers(1, 4))):
        place = int(random.choice(likely if likely and random.random() < 0.9 else list(entries.values())))
        _lie(raw, place, order, word, random)
    return bytes(raw)


def _entries(whole: bytes) -> dict[int, int]:
    """Where in a TIFF the entries of its first directory stand, by code."""
    order = {b"II": "<", b"MM": ">"}.get(whole[:2])
    if order is None or len(whole) < 16:
        return {}
    big = struct.unpack_from(f"{order}H", whole, 2)[0] == 43
    (first,) = struct.unpack_from(f"{order}{'Q' if big else 'I'}", whole, 8 if big else 4)
    (count,) = struct.unpack_from(f"{order}{'Q' if big else 'H'}", whole, first)
    start, size = first + (8 if big else 2), (20 if big else 12)
    places = range(start, start + count * size, size)
    return {struct.unpack_from(f"{order}H", whole, place)[0]: place for place in places}


def _lie(raw: bytearray, place: int, order: str, word: int, random: np.random.Generator) -> None:
    code, kind = struct.unpack_from(f"{order}HH", raw, place)
    number = int(random.choice(np.array(_NUMBERS, np.uint64)))
    field = place + 4 + word
    lie = int(random.integers(0, 10))
    if code == 259 and lie < 7:
        struct.pack_into(f"{order}H", raw, field, int(random.choice(_CODECS)))
    elif lie == 0:
        struct.pack_into(f"{order}H", raw, place, int(random.choice(_TAGS)))
    elif lie == 1:
        struct.pack_into(f"{order}H", raw, place + 2, int(random.integers(0, 20)))
    elif lie == 2:  # how many values
        struct.pack_into(f"{order}{'Q' if word == 8 else 'I'}", raw, place + 4, number % 2 ** (8 * word))
    elif kind == 3 and lie < 8:
        struct.pack_into(f"{order}H", raw, field, number % 2**16)
    elif kind == 4 and lie < 8:
        struct.pack_into(f"{order}I", raw, field, number % 2**32)
    else:  # the value, or where the values lie
        struct.pack_into(f"{order}{'Q' if word == 8 else 'I'}", raw, field, number % 2 ** (8 * word))

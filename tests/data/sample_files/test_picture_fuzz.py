"""Whatever bytes of a photograph are changed, it is read or refused, within the memory that was said."""

from __future__ import annotations

import io
import struct
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from caudal.core.errors import UnreadableFile
from caudal.data.byte_file import LocalFile
from caudal.data.sample_files.pictures import PictureReader
from caudal.memory.meters import PeakMeter, charged_bytes

ROUNDS = 600
READERS = (PictureReader(), PictureReader((32, 40)), PictureReader((32, 40), scaled=True))


def seeds(data_dir: Path) -> list[bytes]:
    """Real photographs, and the same in the rarer kinds of JPEG and PNG."""
    jpegs = [path.read_bytes() for path in sorted((data_dir / "lesion" / "images").rglob("*.jpg"))[::48]]
    pngs = [path.read_bytes() for path in sorted((data_dir / "anomaly_paper").rglob("*.png"))[::90]]
    with Image.open(io.BytesIO(jpegs[0])) as image:
        small = image.convert("RGB").resize((120, 90))
    exif = Image.Exif()
    exif[0x0112] = 6
    saved = [
        ("RGB", "jpeg", {"progressive": True, "exif": exif.tobytes()}),
        ("L", "jpeg", {"exif": exif.tobytes()}),
        ("CMYK", "jpeg", {}),
        ("RGB", "jpeg", {"restart_marker_blocks": 3, "subsampling": 0}),
        ("P", "png", {"transparency": 3}),
        ("LA", "png", {}),
        ("RGBA", "png", {}),
    ]
    for mode, kind, options in saved:
        stream = io.BytesIO()
        small.convert(mode).save(stream, kind, **options)
        (jpegs if kind == "jpeg" else pngs).append(stream.getvalue())
    return jpegs + pngs


def lying(raw: bytearray, random: np.random.Generator) -> bytearray:
    """Another height and width in the header, its checksum right."""
    size = [int(n) for n in random.choice([0, 1, 7, 100, 515, 3000, 65_000], 2)]
    if raw.startswith(b"\x89PNG"):
        raw[16:24] = struct.pack(">II", *size)
        raw[24:26] = random.choice([1, 2, 4, 8, 16, 0, 3, 6], 2).astype(np.uint8).tobytes()
        raw[29:33] = struct.pack(">I", zlib.crc32(raw[12:29]))
        return raw
    frames = [raw.find(marker) for marker in (b"\xff\xc0\x00", b"\xff\xc2\x00")]
    at = max(frames)
    raw[at + 5 : at + 9] = struct.pack(">HH", *size)
    return raw


def mutated(whole: bytes, random: np.random.Generator) -> bytes:
    """Bytes changed near the head or anywhere, a piece repeated, the end cut off, or a false header."""
    raw = bytearray(whole)
    kind = int(random.integers(0, 6))
    if kind == 0:
        return bytes(lying(raw, random))
    if kind == 1:
        del raw[int(random.integers(1, len(raw))) :]
    elif kind == 2:
        at, to = (int(n) for n in random.integers(0, len(raw), 2))
        raw[to:to] = raw[at : at + int(random.integers(1, 300))]
    else:
        reach = min(len(raw), 700) if kind < 5 else len(raw)
        for place in random.integers(0, reach, int(random.integers(1, 6))):
            raw[place] = int(random.integers(0, 256))
    return bytes(raw)


def attempt(path: Path, reader: PictureReader) -> tuple[str, int]:
    """How far reading came, and the most bytes it may have held by what the part says."""
    file = LocalFile(path)
    try:
        part = reader.part(file, whole=True)
    except UnreadableFile:
        return "refused by the header", 0
    slot = np.empty((1, *part.fields[0].row_shape), np.uint8)
    assert slot.nbytes <= max(3 * 32 * 40, 24 * 1032 * file.size_bytes)
    try:
        reader.read(file, part, 0, {"image": slot})
    except UnreadableFile:
        return "refused by the pixels", part.scratch_bytes + slot.nbytes
    return "read", part.scratch_bytes + slot.nbytes


@pytest.mark.data
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_changed_photographs_are_read_or_refused_within_the_memory_said(
    tmp_path: Path, data_dir: Path
) -> None:
    path, random = tmp_path / "x.jpg", np.random.default_rng(12)
    sources = seeds(data_dir)
    for whole in sources:  # all libraries are loaded by now
        path.write_bytes(whole)
        assert attempt(path, READERS[0])[0] == "read"
    counts, most = Counter[str](), 0
    before, meter = charged_bytes(), PeakMeter()
    for turn in range(ROUNDS):
        path.write_bytes(mutated(sources[turn % len(sources)], random))
        outcome, nbytes = attempt(path, READERS[turn // len(sources) % len(READERS)])
        counts[outcome] += 1
        most = max(most, nbytes)
    assert len(counts) == 3
    assert min(counts.values()) > 50
    assert meter.peak() - before <= most + 8 * 2**20

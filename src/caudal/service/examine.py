"""What a file that was sent says of itself: its format by its first bytes, then its size, before any pixel.

Runs in the child of `sandbox.py`. Formats that can hold code are not known here, and so never taken.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from caudal.core.messages import _
from caudal.data.locations import open_bytes
from caudal.data.readers import reader_for
from caudal.data.sample_files import sample_readers
from caudal.service.denied import Denied
from caudal.service.serving import Limits

_HEADS: dict[str, tuple[bytes, ...]] = {
    ".tif": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    ".tiff": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    ".png": (b"\x89PNG\r\n\x1a\n",),
    ".jpg": (b"\xff\xd8\xff",),
    ".jpeg": (b"\xff\xd8\xff",),
    ".npy": (b"\x93NUMPY",),
    ".npz": (b"PK\x03\x04",),
    ".parquet": (b"PAR1",),
    ".safetensors": (),
    ".csv": (),
    ".jsonl": (),
}
SUFFIXES = tuple(_HEADS)
"""What may be sent. Pickles (`.pt`, `.pkl`, `.ckpt` …) are not among them."""
RASTERS = (".tif", ".tiff", ".png", ".jpg", ".jpeg")
_TEXTS = (".csv", ".jsonl")
_HEAD_BYTES = 4096


def examine(limits: Limits, path: str) -> dict[str, Any]:
    """The facts of a file, by its header alone.

    Raises:
        Denied: of a kind that is not taken, or past a limit.
        UnreadableFile: broken, or claims that cannot be true.
    """
    file = Path(path)
    suffix = file.suffix.lower()
    if suffix not in _HEADS:
        raise Denied(
            "format",
            _("Files that end in “{suffix}” are not taken.").format(suffix=suffix),
            _("Use one of: {suffixes}.").format(suffixes=" ".join(SUFFIXES)),
        )
    with file.open("rb") as stream:
        head = stream.read(_HEAD_BYTES)
    if _HEADS[suffix] and not head.startswith(_HEADS[suffix]):
        raise Denied(
            "format",
            _("What is in the file is not what “{suffix}” files hold.").format(suffix=suffix),
            _("Send it under the name of its real format."),
        )
    if suffix in _TEXTS:
        if b"\0" in head:
            raise Denied("format", _("This is no text."), _("Send it as UTF-8."))
        return {"kind": "table"}
    look: Callable[[Limits, Path], dict[str, Any]] = _picture if suffix in RASTERS else _samples
    return look(limits, file)


def _picture(limits: Limits, file: Path) -> dict[str, Any]:
    with reader_for(file).open(file) as source:
        header = source.header
    whole = header.block == (header.height, header.width) and file.suffix.lower() not in (".tif", ".tiff")
    most = limits.picture_px if whole else limits.raster_px
    if header.height * header.width > most:
        raise Denied(
            "too_large",
            _("It has {height} × {width} pixels, and {most} are allowed.").format(
                height=header.height, width=header.width, most=most
            ),
            _("Cut it into parts, or raise the limit."),
        )
    block_bytes = header.block[0] * header.block[1] * header.pixel_bytes
    if header.bands > limits.bands or (not whole and block_bytes > limits.block):
        raise Denied(
            "too_large",
            _("It has {bands} bands in blocks of {bytes} bytes, which is more than is allowed.").format(
                bands=header.bands, bytes=block_bytes
            ),
            _("Write it in tiles of 512 × 512 pixels."),
        )
    if header.codec not in limits.codecs:
        raise Denied(
            "codec",
            _("It is compressed with “{codec}”, which is not taken.").format(codec=header.codec),
            _("Use one of: {codecs}.").format(codecs=" ".join(limits.codecs)),
        )
    return {
        "kind": "raster",
        "height": header.height,
        "width": header.width,
        "bands": header.bands,
        "dtype": str(header.dtype),
        "codec": header.codec,
    }


def _samples(limits: Limits, file: Path) -> dict[str, Any]:
    opened = open_bytes(file)
    try:
        part = sample_readers()[file.suffix.lower()].part(opened, whole=True)
    finally:
        opened.close()
    return {"kind": "samples", "fields": [field.name for field in part.fields][:100]}

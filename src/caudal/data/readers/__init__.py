"""What understands file formats: one file each, behind the contract in `base.py`."""

from __future__ import annotations

from functools import cache

from caudal.core.errors import UnreadableFile
from caudal.core.messages import _
from caudal.core.registry import Registry
from caudal.data.locations import located
from caudal.data.readers.base import Reader
from caudal.data.url import Location

READERS = Registry(
    "reader",
    "caudal.readers",
    {
        "geotiff": "caudal.data.readers.geotiff:GeoTiffReader",
        "images": "caudal.data.readers.images:ImageReader",
    },
)


def reader_for(path: str | Location) -> Reader:
    """The reader that takes the file's suffix.

    Raises:
        UnreadableFile: no reader knows the suffix.
        UsageError: a Windows path with nothing behind it here.
    """
    path = located(path)
    suffix = path.suffix.lower()
    if suffix in _by_suffix():
        return _by_suffix()[suffix]
    raise UnreadableFile(
        _("{path}: no reader knows “{suffix}” files.").format(path=path, suffix=suffix),
        _("Use one of: {suffixes}.").format(suffixes=" ".join(known_suffixes())),
        path=str(path),
    )


def known_suffixes() -> list[str]:
    """Every file name suffix that some reader takes, sorted."""
    return sorted(_by_suffix())


@cache
def _by_suffix() -> dict[str, Reader]:
    readers: list[Reader] = [READERS.get(name)() for name in READERS.names()]
    return {suffix: reader for reader in readers for suffix in reader.suffixes}

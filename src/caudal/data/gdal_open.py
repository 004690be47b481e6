"""A raster as GDAL opens it, wherever it lies, for what its header says beside pixels: where it is on Earth.

Pixels are the readers' concern.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import rasterio

from caudal.core.confined import check_path, is_confined
from caudal.core.errors import UnreadableFile
from caudal.core.messages import _
from caudal.data.byte_file import ByteFile, FileObject, LocalFile, read_bytes
from caudal.data.locations import open_with_head
from caudal.data.unreadable import unreadable
from caudal.data.url import Location

_DRIVERS = {b"II": "GTiff", b"MM": "GTiff", b"\x89P": "PNG", b"\xff\xd8": "JPEG", b"BM": "BMP", b"RI": "WEBP"}
"""By the first two bytes: drivers whose files name no others."""


@contextmanager
def opened_by_gdal(path: Location) -> Iterator[Any]:
    """The raster as rasterio's dataset; of one elsewhere the header is fetched, and no file beside it.

    Raises:
        UnreadableFile: one elsewhere is missing, or cannot be reached.
        DataError: it or a file beside it leads out of the folders that this process may read.
        rasterio.errors.RasterioError: GDAL does not read it.
    """
    if isinstance(path, Path):
        check_path(path)
        with rasterio.open(path, driver=_driver_of(path) if is_confined() else None) as raster:
            for beside in raster.files:  # a world file, for one
                check_path(beside)
            yield raster
        return
    file, head = open_with_head(path)
    troubles: list[UnreadableFile] = []

    def view(*_args: object, **_options: object) -> _Quiet:
        return _Quiet(head, troubles)  # a new one each time, as GDAL closes them

    alone = rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR", GDAL_PAM_ENABLED="NO")
    with closing(file):
        try:
            with alone, rasterio.open(f"raster{path.suffix}", opener=view) as raster:
                yield raster
        finally:
            if troubles:
                raise troubles[0] from None


def _driver_of(path: Path) -> str:
    """Where some folders alone may be read, no driver sees a file that follows what is in it."""
    with closing(LocalFile(path)) as file:
        head = read_bytes(file, 0, min(2, file.size_bytes))
    if head not in _DRIVERS:
        raise unreadable(path, _("it is no picture of a kind that is known by its first bytes"))
    return _DRIVERS[head]


class _Quiet(FileObject):
    """Notes what goes wrong and seems to end there: GDAL's callbacks must not raise."""

    def __init__(self, file: ByteFile, troubles: list[UnreadableFile]) -> None:
        super().__init__(file)
        self._troubles = troubles

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """See `FileObject.readinto`."""
        try:
            return super().readinto(buffer)
        except UnreadableFile as error:
            self._troubles.append(error)
            return 0

"""TIFFs that only GDAL understands, behind the reader's contract.

Slower than the native path and with GDAL's own block cache, which is kept small: it is process-wide and no
budget sees it. GDAL may use one dataset in one thread at a time, so idle ones wait in a pool.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import rasterio
import rasterio.windows
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning

from caudal.core.confined import check_path
from caudal.core.errors import UnreadableFile
from caudal.core.geometry import Window
from caudal.core.messages import _
from caudal.data.readers.base import Header, Pixels, check_size, valid_mask
from caudal.data.unreadable import unreadable

CACHE_BYTES = 16 * 2**20
# Even a file of empty tiles has some bytes for each in its index.
_MOST_GROWTH = 2**18

# Where a picture lies on the ground is not asked here.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)


class _BrokenBlocks(logging.Filter):
    """Hears what GDAL says of a broken JPEG block while this thread reads.

    libjpeg makes up the pixels that it could not decode and GDAL only warns of it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._heard = threading.local()

    @contextlib.contextmanager
    def listening(self) -> Iterator[list[str]]:
        self._heard.messages = []
        try:
            yield self._heard.messages
        finally:
            del self._heard.messages

    def filter(self, record: logging.LogRecord) -> bool:
        messages: list[str] | None = getattr(self._heard, "messages", None)
        if messages is None:
            return True
        if "JPEGLib" in record.getMessage():
            messages.append(record.getMessage().split("JPEGLib:")[-1])
        return False


_broken_blocks = _BrokenBlocks()
for _name in ("rasterio._err", "rasterio._env"):
    logging.getLogger(_name).addFilter(_broken_blocks)


@contextlib.contextmanager
def _gdal(path: Path) -> Iterator[None]:
    """GDAL with a small cache and no look at neighbouring files; whatever it raises becomes our error."""
    try:
        with (
            rasterio.Env(
                GDAL_CACHEMAX=CACHE_BYTES, GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR", GDAL_PAM_ENABLED="NO"
            ),
            _broken_blocks.listening() as messages,
        ):
            yield
    except (UnreadableFile, AssertionError):
        raise
    except Exception as error:  # GDAL's binding raises a dozen unrelated kinds on hostile files
        cause = error.__cause__ or error
        raise unreadable(path, _reason(cause)) from None
    if messages:
        raise unreadable(path, _("a block is broken ({why})").format(why=messages[0]))


def _reason(error: BaseException) -> str:
    text = str(getattr(error, "errmsg", "") or error) or type(error).__name__
    return " ".join(text.split()).rstrip(".")


class RasterioSource:
    """An open TIFF, read by GDAL.

    Raises:
        UnreadableFile: GDAL does not open it either, its pixels are complex, or its claims cannot be true.
    """

    def __init__(self, path: Path) -> None:
        check_path(path)
        self._path = path
        self._lock = threading.Lock()
        self._idle: list[Any] = []
        self._all: list[Any] = []
        dataset = self._take()
        try:
            with _gdal(path):
                self.header: Header = _header(path, dataset)
        except BaseException:
            self.close()
            raise
        self._give_back(dataset)

    def read(self, window: Window) -> Pixels:
        """The pixels of `window`: x_HWC in the file's dtype, and which are valid; see `Source.read`.

        Raises:
            UnreadableFile: a block is missing, truncated or broken.
        """
        header = self.header
        assert window.intersect(header.window) == window, "a window must lie inside the image"
        if not window.area_px:
            return Pixels(np.empty((window.height, window.width, header.bands), header.dtype), None)
        area = rasterio.windows.Window(window.col, window.row, window.width, window.height)
        dataset = self._take()
        try:
            with _gdal(self._path):
                x_CHW = dataset.read(window=area)
        finally:
            self._give_back(dataset)
        x_HWC = np.ascontiguousarray(np.moveaxis(x_CHW[: header.bands], 0, 2))
        valid_HW = valid_mask(x_HWC, header.nodata)
        if header.has_alpha:
            opaque_HW = x_CHW[-1] != 0
            if not opaque_HW.all():
                valid_HW = opaque_HW if valid_HW is None else valid_HW & opaque_HW
        return Pixels(x_HWC, valid_HW)

    def scratch_bytes(self, window: Window) -> int:
        """The most bytes that `read(window)` holds beside its result: GDAL's cache, a block, the planes."""
        header = self.header
        samples = (header.bands + header.has_alpha) * header.dtype.itemsize
        block = header.block[0] * header.block[1] * samples
        return CACHE_BYTES + 2 * block + window.area_px * (samples + header.bands + 4)

    def close(self) -> None:
        """Give the file back."""
        with self._lock:
            datasets, self._all, self._idle = self._all, [], []
        for dataset in datasets:
            dataset.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _take(self) -> Any:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        with _gdal(self._path):
            # The driver is named, so that no other one is tricked into opening what calls itself a TIFF.
            dataset = rasterio.open(self._path, driver="GTiff", sharing=False)
        with self._lock:
            self._all.append(dataset)
        return dataset

    def _give_back(self, dataset: Any) -> None:
        with self._lock:
            if dataset in self._all:
                self._idle.append(dataset)


def _header(path: Path, dataset: Any) -> Header:
    dtype = np.dtype(dataset.dtypes[0])
    if dtype.kind not in "iuf":
        raise unreadable(
            path,
            _("its pixels are complex numbers"),
            _("Write their magnitude, or real and imaginary parts as two bands."),
        )
    has_alpha = dataset.count > 1 and dataset.colorinterp[-1] == ColorInterp.alpha
    bands = dataset.count - has_alpha
    names = tuple(name or "" for name in dataset.descriptions[:bands])
    height, width = dataset.block_shapes[0]
    pixels = dataset.height * dataset.width * dataset.count
    size_bytes = path.stat().st_size
    if pixels * dtype.itemsize > size_bytes * _MOST_GROWTH:
        raise unreadable(path, _("so small a file cannot hold the pixels it claims"))
    check_size(path, dataset.height, dataset.width, dataset.count, dtype, (height, width))
    return Header(
        path=path,
        height=dataset.height,
        width=dataset.width,
        bands=bands,
        dtype=dtype,
        block=(height, width),
        codec=(dataset.compression.value if dataset.compression else "none").lower(),
        band_names=names if any(names) else (),
        nodata=dataset.nodata,
        has_alpha=has_alpha,
        size_bytes=size_bytes,
    )

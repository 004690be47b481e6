"""GeoTIFF, Cloud-Optimized GeoTIFF and BigTIFF: own tile index, windows of blocks, native decoders.

A file on disk is read by the decoders themselves, through one descriptor; a file elsewhere (`open_tiff`) by
ranges, a few blocks at a time. What the native path does not cover (odd codecs and bit depths …) is read
through GDAL in `rasterio_source.py`, behind the same contract, on disk only. Georeference is not read here:
see `inference/`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np

from caudal.core.errors import UnreadableFile
from caudal.core.geometry import Window
from caudal.core.messages import _
from caudal.data.readers.base import Header, Pixels, Source, valid_mask
from caudal.data.readers.files import open_for_reading, read_exactly
from caudal.data.readers.tiff_blocks import Group, groups
from caudal.data.readers.tiff_decode import decode, group_bytes
from caudal.data.readers.tiff_layout import Foreign, Layout, read_layout
from caudal.data.readers.tiff_tags import ReadInto

# A request costs a round trip: tags are fetched by pages, and blocks this near to each other in one go.
_PAGE_BYTES = 64 * 1024
_NEAR_BYTES = 128 * 1024


class GeoTiffReader:
    """Reads the first full-resolution image of a TIFF."""

    suffixes: tuple[str, ...] = (".tif", ".tiff")

    def header(self, path: Path) -> Header:
        """Read the header alone; see `Reader.header`.

        Raises:
            UnreadableFile: missing, empty, truncated, no TIFF, or claims that cannot be true.
        """
        fd, size_bytes = open_for_reading(path)
        try:
            return read_layout(partial(read_exactly, fd, path), path, size_bytes).header()
        except Foreign:
            from caudal.data.readers.rasterio_source import RasterioSource

            with RasterioSource(path) as source:
                return source.header
        finally:
            os.close(fd)

    def open(self, path: Path) -> Source:
        """Open for windowed reads; see `Reader.open`.

        Raises:
            UnreadableFile: as `header`.
        """
        fd, size_bytes = open_for_reading(path)
        try:
            layout = read_layout(partial(read_exactly, fd, path), path, size_bytes)
            return TiffSource(_OnDisk(fd), layout)
        except Foreign:
            os.close(fd)
            from caudal.data.readers.rasterio_source import RasterioSource

            return RasterioSource(path)
        except BaseException:
            os.close(fd)
            raise


class RangedFile(Protocol):
    """What is asked of a file that is not on disk: the part of `ByteFile` that matters to a TIFF."""

    size_bytes: int

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` with what lies at `offset`; see `ByteFile.read_into`."""
        ...

    def close(self) -> None:
        """Give it back; safe to call twice."""
        ...


def open_tiff(file: RangedFile, name: str) -> Source:
    """Open a TIFF that lies in a `ByteFile` for windowed reads; `name` is what errors call it.

    The header takes one to three small requests, a window one for each run of blocks that it touches. The
    file is the source's from now on: it is closed with it, and when it cannot be opened. A file on disk is
    read faster by `GeoTiffReader`.

    Raises:
        UnreadableFile: truncated, no TIFF, claims that cannot be true, or a codec that only GDAL reads.
    """
    try:
        with _named(name):
            return TiffSource(_Elsewhere(file, name), read_layout(_paged(file), Path(name), file.size_bytes))
    except Foreign:
        file.close()
        why = _("it is a TIFF of a kind that is read on disk alone")
        raise UnreadableFile(
            _("{path} cannot be read: {why}.").format(path=name, why=why),
            _("Copy it to disk, or write it again with DEFLATE, LZW or ZSTD compression."),
            path=name,
        ) from None
    except BaseException:
        file.close()
        raise


class TiffSource:
    """An open TIFF; owns its bytes. Reads share nothing that changes, so threads need no lock."""

    def __init__(self, place: _OnDisk | _Elsewhere, layout: Layout) -> None:
        self.header: Header = layout.header()
        self._layout = layout
        self._place = place

    def read(self, window: Window) -> Pixels:
        """The pixels of `window`: x_HWC in the file's dtype, and which are valid; see `Source.read`.

        Raises:
            UnreadableFile: a block is missing, truncated or broken.
        """
        header, layout = self.header, self._layout
        assert window.intersect(header.window) == window, "a window must lie inside the image"
        bands, size = header.bands, (window.height, window.width)
        x_HWC = np.empty((*size, bands), header.dtype)
        opaque_HW = np.ones(size, np.bool_) if header.has_alpha else None
        for group in groups(layout, window):
            first, last = group.plane, group.plane + layout.plane_samples
            with self._place.blocks(layout, group) as fd:
                for part, block in decode(fd, layout, group, window):
                    rows, cols = part.within(window)
                    if first < bands:
                        x_HWC[rows, cols, first : min(last, bands)] = block[:, :, : bands - first]
                    if opaque_HW is not None and last > bands:
                        opaque_HW[rows, cols] = block[:, :, -1] != 0
                    del block  # or it would live on while the next one is decoded
        valid_HW = valid_mask(x_HWC, header.nodata)
        if opaque_HW is not None and not opaque_HW.all():
            valid_HW = opaque_HW if valid_HW is None else valid_HW & opaque_HW
        return Pixels(x_HWC, valid_HW)

    def scratch_bytes(self, window: Window) -> int:
        """The most bytes that `read(window)` holds beside its result; see `Source.scratch_bytes`."""
        layout, header, fetched = self._layout, self.header, self._place.fetched_bytes
        blocks = max(
            (group_bytes(layout, group) + fetched(layout, group) for group in groups(layout, window)),
            default=0,
        )
        masks = header.bands + 2 if header.nodata is not None or header.dtype.kind == "f" else 0
        return max(blocks, window.area_px * masks) + window.area_px * 2 * header.has_alpha

    def close(self) -> None:
        """Give the file back."""
        self._place.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


class _OnDisk:
    """The descriptor of a file on disk, from which the decoders read what they need."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._closing = threading.Lock()

    def blocks(self, layout: Layout, group: Group) -> AbstractContextManager[int]:
        """A descriptor in which the group's blocks lie at their offsets."""
        return nullcontext(self._fd)

    def fetched_bytes(self, layout: Layout, group: Group) -> int:
        """Bytes that `blocks` holds in memory."""
        return 0

    def close(self) -> None:
        """Give the descriptor back."""
        with self._closing:
            fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class _Elsewhere:
    """A file that has no descriptor here.

    The blocks that are wanted are fetched into an anonymous file in memory, sparse and with every block at
    its own offset, so that the decoders need not know where they came from.
    """

    def __init__(self, file: RangedFile, name: str) -> None:
        self._file = file
        self._name = name

    @contextmanager
    def blocks(self, layout: Layout, group: Group) -> Iterator[int]:
        """See `_OnDisk.blocks`."""
        with open(os.memfd_create("blocks"), "wb") as memory, _named(self._name):
            for start, size in _spans(layout, group):
                buffer = bytearray(size)
                self._file.read_into(start, memoryview(buffer))
                memory.seek(start)
                memory.write(buffer)
            memory.flush()
            yield memory.fileno()

    def fetched_bytes(self, layout: Layout, group: Group) -> int:
        """See `_OnDisk.fetched_bytes`: all spans, and one of them twice."""
        sizes = [size for _start, size in _spans(layout, group)]
        return sum(sizes) + max(sizes, default=0)

    def close(self) -> None:
        """Give the file back."""
        self._file.close()


def _spans(layout: Layout, group: Group) -> list[tuple[int, int]]:
    """Offset and size in bytes of each run of the group's blocks that are near to each other, in order."""
    offsets = layout.offsets[group.index()].ravel()
    counts = layout.counts[group.index()].ravel()
    spans: list[tuple[int, int]] = []
    for start, size in sorted(zip(offsets.tolist(), counts.tolist(), strict=True)):
        if not size:
            continue
        if spans and start <= sum(spans[-1]) + _NEAR_BYTES:
            first, end = spans[-1][0], max(sum(spans[-1]), start + size)
            spans[-1] = first, end - first
        else:
            spans.append((start, size))
    return spans


def _paged(file: RangedFile) -> ReadInto:
    """`file.read_into` through pages that are kept: tags lie together, and are many and small."""
    pages: dict[int, bytes] = {}

    def page(number: int) -> bytes:
        if number not in pages:
            start = number * _PAGE_BYTES
            buffer = bytearray(min(_PAGE_BYTES, file.size_bytes - start))
            file.read_into(start, memoryview(buffer))
            pages[number] = bytes(buffer)
        return pages[number]

    def read_into(offset: int, buffer: memoryview) -> None:
        if len(buffer) > _PAGE_BYTES:
            file.read_into(offset, buffer)
            return
        first, last = offset // _PAGE_BYTES, (offset + len(buffer) - 1) // _PAGE_BYTES
        together = b"".join(page(number) for number in range(first, last + 1))
        start = offset - first * _PAGE_BYTES
        buffer[:] = together[start : start + len(buffer)]

    return read_into


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Errors in which `name` stands as it was given: as a path, a URL loses a slash."""
    try:
        yield
    except UnreadableFile as error:
        if name in error.message:
            raise
        message = error.message.replace(str(Path(name)), name)
        raise UnreadableFile(message, error.hint, path=name) from None

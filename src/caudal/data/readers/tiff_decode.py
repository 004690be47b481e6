"""Blocks of a TIFF into pixels, by the decoder that suits the codec; none holds the interpreter's lock.

uncompressed       read row by row or whole, whichever moves fewer bytes
DEFLATE            libdeflate, which checks each block's checksum; libtiff does not, and makes up pixels
ZSTD in tiles      libzstd, tile by tile straight to its place
ZSTD, LZW, …       libtiff: `tiff_capsule.py`
JPEG, LERC, WebP   a decoder each: `tiff_pictures.py`
never written      nodata, or 0
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import imagecodecs
import numpy as np

from caudal.core.geometry import Window
from caudal.core.messages import _
from caudal.data.readers.base import Array
from caudal.data.readers.tiff_blocks import GAP_BYTES, Group, broken, gather
from caudal.data.readers.tiff_capsule import capsule_bytes, decode_capsule
from caudal.data.readers.tiff_layout import CODECS, PICTURES, RAW, Layout
from caudal.data.readers.tiff_pictures import decode_pictures, picture_bytes
from caudal.data.readers.tiff_tags import ReadInto

Place = Callable[[Window], Array | None]

_ALONE: dict[str, tuple[Callable[..., Any], type[Exception]]] = {
    "deflate": (imagecodecs.deflate_decode, imagecodecs.DeflateError),
    "zstd": (imagecodecs.zstd_decode, imagecodecs.ZstdError),
}
"""Codecs whose blocks are decompressed alone, the predictor undone by ourselves."""


def _is_alone(layout: Layout) -> bool:
    # Small strips, and floats in differences of bytes, are faster through libtiff.
    codec = CODECS[layout.codec]
    return codec == "deflate" or (codec == "zstd" and layout.tiled and layout.predictor != 3)


def group_bytes(layout: Layout, group: Group) -> int:
    """The most bytes that decoding `group` holds: the gathered file bytes and the decoded blocks."""
    decoded = group.window(layout).area_px * layout.plane_samples * layout.dtype.itemsize
    if layout.codec == RAW:
        return decoded
    counts = layout.counts[group.index()]
    encoded = int(counts.sum()) + counts.size * (GAP_BYTES + 64)
    if layout.codec in PICTURES:
        return encoded + picture_bytes(layout, group)
    if not _is_alone(layout):
        return decoded + encoded + capsule_bytes(layout, counts.size)
    swapped = layout.predictor == 2 and not _stored(layout).isnative
    return encoded + decoded * (2 if layout.predictor == 3 or swapped else 1)


def decode(
    read: ReadInto, layout: Layout, group: Group, window: Window, place: Place = lambda _part: None
) -> Iterator[tuple[Window, Array]]:
    """The pixels that `group` has of `window`, in pieces: where each lies, and x_HWC of the plane's samples.

    A piece is good until the next one is asked for. `place` gives the array (height, width, samples) for one
    that may be decoded straight to its place; such pieces are not handed out.

    Raises:
        UnreadableFile: a block is truncated or broken.
    """
    outer = group.window(layout)
    wanted = window.intersect(outer)
    if not layout.counts[group.index()].all():
        fill = layout.nodata if layout.nodata is not None else 0
        yield wanted, np.full((wanted.height, wanted.width, layout.plane_samples), fill, layout.dtype)
    elif layout.codec == RAW:
        yield wanted, _read_raw(read, layout, group, wanted)
    elif _is_alone(layout):
        yield from _inflate_pieces(read, layout, group, window, place)
    elif layout.codec in PICTURES:
        yield from decode_pictures(read, layout, group, window)
    else:
        yield wanted, decode_capsule(read, layout, group)[wanted.within(outer)]


def _stored(layout: Layout) -> np.dtype[np.generic]:
    return layout.dtype.newbyteorder(layout.byteorder)  # type: ignore[arg-type]


def _read_raw(read: ReadInto, layout: Layout, group: Group, wanted: Window) -> Array:
    outer = group.window(layout)
    samples, dtype = layout.plane_samples, _stored(layout)
    pixel_bytes = samples * dtype.itemsize
    row_bytes = outer.width * pixel_bytes
    row, col = wanted.row - outer.row, wanted.col - outer.col
    start = int(layout.offsets[group.index()][0, 0]) + row * row_bytes
    # A read costs about as much as moving 16 KiB, so short gaps between rows are read along.
    if row_bytes - wanted.width * pixel_bytes <= 16 * 1024:
        rows = np.empty((wanted.height, outer.width, samples), dtype)
        read(start, _as_bytes(rows))
        return rows[:, col : col + wanted.width]
    rows = np.empty((wanted.height, wanted.width, samples), dtype)
    for i in range(wanted.height):
        place = start + i * row_bytes + col * pixel_bytes
        read(place, _as_bytes(rows[i]))
    return rows


def _as_bytes(x: Array) -> memoryview:
    return x.reshape(-1).view(np.uint8).data


def _inflate_pieces(
    read: ReadInto, layout: Layout, group: Group, window: Window, place: Place
) -> Iterator[tuple[Window, Array]]:
    outer = group.window(layout)
    encoded, places, counts = gather(read, layout, group)
    blocks = [encoded[at : at + count] for at, count in zip(places.tolist(), counts.tolist(), strict=True)]
    if not layout.tiled:
        x = np.empty(outer.area_px * layout.plane_samples * layout.dtype.itemsize, np.uint8)
        for number, data in enumerate(blocks):
            start = number * layout.block_bytes
            _inflate(data, layout, group, x[start : start + layout.block_bytes].data)
        wanted = window.intersect(outer)
        yield wanted, _unpredicted(x, layout)[wanted.within(outer)]
        return
    height, width = layout.block
    columns = group.right - group.left
    in_place = layout.predictor == 2 and _stored(layout).isnative
    x = np.empty(layout.block_bytes, np.uint8)  # one after the other: it stays in the processor's cache
    for number, data in enumerate(blocks):
        _inflate(data, layout, group, x.data)
        row, col = group.top + number // columns, group.left + number % columns
        tile = Window(row * height, col * width, height, width)
        wanted = window.intersect(tile)
        room = place(tile) if wanted == tile and in_place else None
        if room is not None:
            _add_up(x.view(layout.dtype).reshape(room.shape), room)
        else:
            yield wanted, _unpredicted(x, layout)[wanted.within(tile)]


def _inflate(data: memoryview, layout: Layout, group: Group, room: memoryview) -> None:
    """Decode one block into `room`, which it has to fill."""
    decompress, failure = _ALONE[CODECS[layout.codec]]
    try:
        size = len(decompress(data, out=room))
    except failure as error:
        size = _inflate_padded(data, layout, room)
        if size < len(room):
            raise broken(layout, group, str(error).split()[-1]) from None
    if size < len(room):
        raise broken(layout, group, _("it decodes to too little"))


def _inflate_padded(data: Any, layout: Layout, room: memoryview) -> int:
    """The last strip, where a writer padded it to a whole one. Bytes written to `room`; 0 if it is broken."""
    if len(room) == layout.block_bytes:
        return 0
    decompress, failure = _ALONE[CODECS[layout.codec]]
    try:
        whole = decompress(data, out=layout.block_bytes)[: len(room)]
    except failure:
        return 0
    room[: len(whole)] = whole
    return len(whole)


def _unpredicted(x: Array, layout: Layout) -> Array:
    """Decoded bytes as pixels, (rows, block width, samples), with the predictor undone."""
    shape = (-1, layout.block[1], layout.plane_samples)
    if layout.predictor == 3:
        return _unsplit(x, layout.dtype, shape)
    pixels = x.view(_stored(layout)).reshape(shape)
    if layout.predictor == 2:  # differences of whole numbers, even where they are the bits of floats
        pixels = pixels.astype(layout.dtype, copy=False)
        _add_up(pixels, pixels)
    return pixels


def _add_up(differences_HWC: Array, x_HWC: Array) -> None:
    """Undo the predictor of whole numbers, which is that of floats' bits too."""
    whole = f"u{x_HWC.dtype.itemsize}"
    imagecodecs.delta_decode(differences_HWC.view(whole), axis=-2, out=x_HWC.view(whole))


def _unsplit(x: Array, dtype: np.dtype[Any], shape: tuple[int, int, int]) -> Array:
    """Floats of `shape` whose rows lie as differences of bytes: all first bytes, all second ones, and so on.

    The most significant byte comes first, whatever the file's order. Two to four times as fast as
    imagecodecs' `floatpred_decode`, which goes through the samples one by one.
    """
    _rows, width, samples = shape
    size = dtype.itemsize
    bytes_RBS = x.reshape(-1, width * size, samples)
    imagecodecs.delta_decode(bytes_RBS, axis=-2, out=bytes_RBS)
    planes = x.reshape(-1, size, width * samples)
    floats = np.empty((len(planes), width * samples, size), np.uint8)
    for number in range(size):
        floats[:, :, size - 1 - number if sys.byteorder == "little" else number] = planes[:, number]
    return floats.view(dtype).reshape(shape)

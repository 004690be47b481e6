"""Pictures in memory: the size that a JPEG or PNG says it has, then its pixels, turned upright and resized.

It opens no file and knows no path. Pillow reads headers of PNGs, simplejpeg and imagecodecs decode, OpenCV
turns; the last three let go of the interpreter's lock. Pixels are x_HWC, uint8, RGB.

A decoder that fills what is missing with grey has read nothing, so its warnings are errors here. One is not:
bytes left over before the end marker of a JPEG, which come after the last pixel.
"""

from __future__ import annotations

import re
import struct
import zlib
from math import prod
from typing import BinaryIO

import cv2
import imagecodecs
import numpy as np
import simplejpeg
from PIL import PngImagePlugin

from caudal.core.errors import UnreadableFile
from caudal.core.messages import _
from caudal.data.sample_files.base import Array
from caudal.data.sample_files.jpeg_header import read_jpeg_header
from caudal.data.sample_files.picture_header import BrokenPicture, PictureHeader, Size
from caudal.data.sample_files.picture_resize import resize_into, resize_steps

MAX_PIXELS = 2**28
# As many scans a progressive JPEG may have: each walks over the whole picture, whatever few bytes it takes.
_MAX_SCANS = 100
# No honest file holds more: DEFLATE shrinks 1032-fold, a JPEG spends a bit on each block of 8×8 pixels.
_MOST_DEFLATE = 1032
_MOST_JPEG_PIXELS_PER_BYTE = 512
_PNG_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type; a palette's index is one
_PNG_PALETTE = 3
# The axis for cv2.flip by EXIF orientation (2.3 §4.6.4), after rows and columns are swapped from 5 on.
_MIRRORS = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}
_SEQUENTIAL = b"\x00\x3f\x00"  # the end of a scan header: all 64 frequencies, all their bits
_HARMLESS = re.compile(r"extraneous bytes before marker 0xd9")
# What decoders hold beside the picture: tables, and rows in work.
_DECODER_BYTES = 2**17
_DECODER_ROW_BYTES_PER_PX = 64


def read_header(stream: BinaryIO, size_bytes: int) -> PictureHeader:
    """What the first bytes of `stream`, `size_bytes` long and at its beginning, say of the picture in it.

    Raises:
        BrokenPicture: neither PNG nor JPEG, broken, of a kind that is not read, or a claim that no file of
            this size can keep.
        UnreadableFile: the stream itself fails.
    """
    head = stream.read(32)
    stream.seek(0)
    if not head.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")):
        raise BrokenPicture(
            _("it is neither a JPEG nor a PNG picture"), _("Save it as one of the two, or leave it out.")
        )
    is_png = head.startswith(b"\x89PNG")
    try:
        header = _png_header(stream, head) if is_png else read_jpeg_header(stream)
    except (BrokenPicture, UnreadableFile):
        raise
    except Exception as error:  # Pillow raises a dozen unrelated kinds on hostile files
        raise BrokenPicture(_("its header is broken ({why})").format(why=_reason(error))) from None
    height, width = header.stored_px
    if is_png:
        row_bits = width * _PNG_SAMPLES[head[25]] * head[24]
        held = height * -(-row_bits // 8) <= size_bytes * _MOST_DEFLATE
    else:
        held = height * width <= size_bytes * _MOST_JPEG_PIXELS_PER_BYTE
    if not held:
        raise BrokenPicture(
            _("{size} bytes cannot hold the {height}×{width} pixels it claims").format(
                size=size_bytes, height=height, width=width
            )
        )
    if height * width > MAX_PIXELS:
        raise BrokenPicture(
            _("it has {height}×{width} pixels, and {limit} are the most").format(
                height=height, width=width, limit=MAX_PIXELS
            ),
            _("Make it smaller, or cut it into several pictures."),
        )
    return header


def scratch_bytes(header: PictureHeader, asked_px: Size, scaled: bool, antialias: bool) -> int:
    """The most bytes that `decode_into` holds beside the encoded picture and the array it fills."""
    target = header.turned(asked_px)
    _factor, decoded = _decoded_px(header, target, scaled)
    held = header.coefficient_bytes + _DECODER_BYTES + _DECODER_ROW_BYTES_PER_PX * header.stored_px[1]
    if header.samples != 3:
        held += prod(decoded) * header.samples
    if decoded != target:
        # Of the sizes between, two are held at once, and they do not grow.
        between = resize_steps(decoded, target, antialias)[:-1]
        held += 3 * (prod(decoded) + sum(map(prod, between[:2])))
    if header.orientation >= 5:
        held += 3 * prod(target)
    return held


def decode_into(data: bytes, header: PictureHeader, scaled: bool, antialias: bool, out_HWC: Array) -> None:
    """Decode `data` into `out_HWC` (uint8, RGB, C order), resized to its height and width where they differ.

    `antialias`: see `picture_resize`. `scaled` lets a JPEG be decoded at 1/2, 1/4 or 1/8 first, where that is
    not below the asked size. `header` must be what `read_header` says of these very bytes.

    Raises:
        BrokenPicture: truncated, broken, or of another size than its header says.
    """
    target = header.turned((out_HWC.shape[0], out_HWC.shape[1]))
    # A picture on its side is turned when it is small already.
    x_HWC = np.empty((*target, 3), np.uint8) if header.orientation >= 5 else out_HWC
    factor, decoded = _decoded_px(header, target, scaled)
    if decoded == target:
        _decode(data, header, x_HWC)
    else:
        full_HWC = np.empty((*decoded, 3), np.uint8)
        _decode(data, header, full_HWC)
        if factor > 1:
            # The last row and column of a scaled picture may stand for less than half of one: without them
            # the rest keeps its place.
            rows, columns = (
                max(asked, (stored + factor // 2) // factor)
                for asked, stored in zip(target, header.stored_px, strict=True)
            )
            full_HWC = full_HWC[:rows, :columns]
        resize_into(full_HWC, x_HWC, antialias)
    if header.orientation >= 5:
        cv2.transpose(x_HWC, dst=out_HWC)
    if header.orientation in _MIRRORS:
        cv2.flip(out_HWC, _MIRRORS[header.orientation], dst=out_HWC)


def _png_header(stream: BinaryIO, head: bytes) -> PictureHeader:
    # By name: `Image.open` would try other plugins, and has a pixel limit of its own.
    image = PngImagePlugin.PngImageFile(stream)
    if head[24] == 16:
        raise BrokenPicture(
            _("it has 16 bits a sample, and pictures are read with 8"),
            _("Save it with 8 bits, or save its array as .npy, which keeps all 16."),
        )
    samples = 3 if image.mode == "P" else _PNG_SAMPLES[head[25]]
    return PictureHeader(
        "png",
        (image.height, image.width),
        samples=samples,
        has_alpha=samples in (2, 4) or "transparency" in image.info,
        animated=bool(getattr(image, "is_animated", False)),
    )


def _decoded_px(header: PictureHeader, target: Size, scaled: bool) -> tuple[int, Size]:
    """By how much the decoder is to shrink, and the size it then gives: the least not below `target`."""
    height, width = header.stored_px
    for factor in (8, 4, 2) if scaled and header.codec == "jpeg" else ():
        small = -(-height // factor), -(-width // factor)
        if small[0] >= target[0] and small[1] >= target[1]:
            return factor, small
    return 1, (height, width)


def _decode(data: bytes, header: PictureHeader, out_HWC: Array) -> None:
    """Fill `out_HWC` with the pixels as stored; a JPEG may be asked for smaller ones by its shape."""
    decode = _decode_png if header.codec == "png" else _decode_jpeg
    try:
        as_said = decode(data, header, out_HWC)
    except BrokenPicture:
        raise
    except Exception as error:  # decoders raise a dozen unrelated kinds on hostile files
        raise BrokenPicture(_("its pixels are broken ({why})").format(why=_reason(error))) from None
    if not as_said:
        raise BrokenPicture(_("it decodes to another size than its header says"))


def _decode_png(data: bytes, header: PictureHeader, out_HWC: Array) -> bool:
    data = _pixel_chunks(data)
    if header.samples == 3:
        imagecodecs.png_decode(data, out=out_HWC)
        return True
    x: Array = imagecodecs.png_decode(data)
    shape = (*out_HWC.shape[:2], header.samples) if header.samples > 1 else out_HWC.shape[:2]
    if x.dtype != np.uint8 or x.shape != shape:
        return False
    green, blue = (1, 2) if header.samples == 4 else (0, 0)
    cv2.mixChannels([x], [out_HWC], [0, 0, green, 1, blue, 2])
    return True


def _pixel_chunks(data: bytes) -> bytes:
    """A PNG without its notes, colour profiles and transparent colours: libpng complains about them aloud.

    Damage is found here, by the checksums, because each picture that libpng gives up costs it some memory.
    """
    wanted = (b"IHDR", b"IDAT", b"IEND", *([b"PLTE"] if data[25] == _PNG_PALETTE else []))
    view, end, kind = memoryview(data), 8, b""
    kept = [view[:end]]
    while kind != b"IEND":
        start = end
        if len(data) >= start + 12:
            length, kind = struct.unpack_from(">I4s", data, start)
            end = start + 12 + length
        if end == start or end > len(data):
            raise BrokenPicture(_("it ends before its last chunk"))
        if kind in wanted:
            if zlib.crc32(view[start + 4 : end - 4]) != int.from_bytes(view[end - 4 : end]):
                raise BrokenPicture(
                    _("a checksum says that bytes {start} to {end} are damaged").format(start=start, end=end)
                )
            kept.append(view[start:end])
    return data if sum(map(len, kept)) == end else b"".join(kept)


def _decode_jpeg(data: bytes | bytearray, header: PictureHeader, out_HWC: Array) -> bool:
    if header.coefficient_bytes and data.count(b"\xff\xda") > _MAX_SCANS:
        raise BrokenPicture(_("it has more than {limit} scans").format(limit=_MAX_SCANS))
    if header.scan_end and data[header.scan_end - 3 : header.scan_end] != _SEQUENTIAL:
        # Some cameras write other numbers; every decoder ignores them, but warns.
        data = bytearray(data)
        data[header.scan_end - 3 : header.scan_end] = _SEQUENTIAL
    height, width = out_HWC.shape[:2] if out_HWC.shape[:2] != header.stored_px else (0, 0)
    options = {"colorspace": "RGB", "min_height": height, "min_width": width, "buffer": out_HWC}
    try:
        x: Array = simplejpeg.decode_jpeg(data, **options)
    except ValueError as error:
        if not _HARMLESS.search(str(error)):
            raise
        x = simplejpeg.decode_jpeg(data, strict=False, **options)
    return x.shape == out_HWC.shape


def _reason(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__).rstrip(".")

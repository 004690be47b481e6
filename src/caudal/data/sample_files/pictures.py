"""Photographs as samples: one picture a file, as uint8 RGB, in its own size or in the one asked for.

A JPEG is turned upright as its EXIF orientation says. Grey, palette and CMYK pictures become RGB; alpha is
left out, as are the later pictures of an animation. PNGs with 16 bits a sample are refused. A picture that is
truncated or damaged is refused; the part of it that could still be decoded is never given.

With `scaled`, a JPEG of at least twice the asked size is decoded at 1/2, 1/4 or 1/8, which takes a fraction
of the time. The result is nearly the same: of 256 levels, photographs differ by 0.8 on average and by 2.9 at
most, each taken as the mean over its samples (by 1.6 and 5.2 without antialiasing, which the decoder's is
better than).

What a picture means (a class, a patient) is not known here, and files of scenes are read elsewhere.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from caudal.core.errors import UnreadableFile, UsageError
from caudal.core.messages import _
from caudal.data.byte_file import ByteFile, FileObject, read_bytes
from caudal.data.sample_files.base import Array, Field, Part
from caudal.data.sample_files.picture_header import BrokenPicture
from caudal.data.unreadable import unreadable

# A header seldom reaches further, and a file far away is asked once.
_HEADER_BYTES = 2**16
_MOST_RESIZED_PX = 2**28


class PictureReader:
    """Reads JPEG and PNG, told apart by their first bytes."""

    suffixes: tuple[str, ...] = (".jpg", ".jpeg", ".png")

    def __init__(
        self, resize_px: tuple[int, int] | None = None, scaled: bool = False, antialias: bool = True
    ) -> None:
        """Give pictures of `resize_px`, (height, width); `None` leaves them as they are.

        `scaled` lets the decoder of JPEGs shrink as far as it can. With `antialias` every pixel of a picture
        that shrinks counts; without it, resizing is plainly bilinear.

        Raises:
            UsageError: a size that no picture has, or `scaled` without a size.
        """
        if resize_px is not None and (min(resize_px) < 1 or resize_px[0] * resize_px[1] > _MOST_RESIZED_PX):
            raise UsageError(
                _("Pictures cannot be resized to {height}×{width} pixels.").format(
                    height=resize_px[0], width=resize_px[1]
                ),
                _("Name a height and a width of at least 1; their product may be {limit}.").format(
                    limit=_MOST_RESIZED_PX
                ),
            )
        if scaled and resize_px is None:
            raise UsageError(
                _("Scaled decoding needs the size that pictures are to have."), _("Name a size to resize to.")
            )
        self.resize_px = resize_px
        self.scaled, self.antialias = scaled, antialias

    def part(self, file: ByteFile, whole: bool) -> Part:
        """One sample, `image`: uint8 (height, width, 3), with or without `whole`. See `SampleReader.part`.

        Raises:
            UnreadableFile: no JPEG or PNG, a broken header, 16 bits a sample, or a claim past the limits.
        """
        from caudal.data.sample_files.picture_decode import read_header, scratch_bytes

        try:
            header = read_header(io.BufferedReader(FileObject(file), _HEADER_BYTES), file.size_bytes)
        except BrokenPicture as error:
            raise _refused(file.name, error) from None
        asked_px = self.resize_px or header.upright_px
        left_out = []
        if header.has_alpha:
            left_out.append(_("Transparency is not read."))
        if header.animated:
            left_out.append(_("Only the first picture of an animation is read."))
        return Part(
            fields=(Field("image", np.dtype(np.uint8), (*asked_px, 3)),),
            ends=np.array([1], np.int64),
            scratch_bytes=2 * file.size_bytes + scratch_bytes(header, asked_px, self.scaled, self.antialias),
            codec=header.codec,
            left_out=tuple(left_out),
        )

    def read(self, file: ByteFile, part: Part, block: int, into: Mapping[str, Array]) -> None:
        """Decode the picture into `into["image"]`, (1, height, width, 3). See `SampleReader.read`.

        Raises:
            UnreadableFile: truncated, damaged, or another picture than when `part` was read.
        """
        self.read_whole(file.name, read_bytes(file, 0, file.size_bytes), into)

    def read_whole(self, name: str, data: bytes, into: Mapping[str, Array]) -> None:
        """Decode the picture into `into["image"]`, (1, height, width, 3). See `LoneReader.read_whole`.

        Raises:
            UnreadableFile: truncated, damaged, or not of the size that it has in `into`.
        """
        from caudal.data.sample_files.picture_decode import decode_into, read_header

        out_HWC = into["image"][0]
        try:
            header = read_header(io.BytesIO(data), len(data))
            if (self.resize_px or header.upright_px) != out_HWC.shape[:2]:
                raise BrokenPicture(_("its size changed since it was listed"))
            decode_into(data, header, self.scaled, self.antialias, out_HWC)
        except BrokenPicture as error:
            raise _refused(name, error) from None


def _refused(name: str, error: BrokenPicture) -> UnreadableFile:
    return unreadable(Path(name), error.why, error.hint)

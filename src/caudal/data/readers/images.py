"""PNG, JPEG, BMP and WebP: whole images, decoded once for each read.

How pixels become bands:

    grey, RGB           1 or 3 bands, uint8; uint16 for a 16-bit PNG
    palette             1 band with the palette's INDEX, which is what masks use; never its colours
    black and white     1 band of 0 and 1
    with alpha          the same without it; alpha 0 is not valid
    CMYK                converted to RGB

A JPEG is turned upright as its EXIF orientation says, and the header's size is that of the turned image.
Of an animation the first frame is read. A PNG's transparent colour (tRNS) is not alpha and is ignored.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import imagecodecs
import numpy as np
import simplejpeg
from PIL import BmpImagePlugin, ImageFile, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from caudal.core.errors import UnreadableFile
from caudal.core.geometry import Window
from caudal.core.messages import _
from caudal.data.byte_file import ByteFile, FileObject, read_bytes
from caudal.data.locations import located, open_with_head
from caudal.data.readers.base import Array, Header, Pixels, check_size
from caudal.data.unreadable import unreadable
from caudal.data.url import Location

# The plugins are called by name: `Image.open` would try others, and has a process-wide pixel limit and
# warning of its own where `check_size` is ours.
_PLUGINS: dict[str, type[ImageFile.ImageFile]] = {
    "png": PngImagePlugin.PngImageFile,
    "jpeg": JpegImagePlugin.JpegImageFile,
    "bmp": BmpImagePlugin.BmpImageFile,
    "webp": WebPImagePlugin.WebPImageFile,
}
_BANDS = {"1": 1, "L": 1, "P": 1, "LA": 1, "I;16": 1, "I": 1, "RGB": 3, "RGBX": 3, "RGBA": 3, "CMYK": 3}
_ALPHA = ("LA", "RGBA")
_EXIF_ORIENTATION = 0x0112
_PNG_SAMPLES = {0: 1, 2: 3, 4: 2, 6: 4}  # colour type → samples, palettes aside
# No honest file holds more pixels a byte: DEFLATE shrinks 1032-fold, a JPEG spends a bit on each 8×8 block,
# and a BMP two bytes on a run of 255. WebP has no such bound, but ends at 16383×16383.
_MOST_PIXELS_PER_BYTE = {"png": 8 * 1032, "jpeg": 512, "bmp": 256}


@dataclass(frozen=True, slots=True)
class _Facts:
    """What reading needs beyond the header."""

    codec: str
    mode: str
    orientation: int
    deep_samples: int  # samples of a 16-bit PNG, alpha included; 0 for all else
    animated: bool = False


class ImageReader:
    """Reads PNG, JPEG, BMP and WebP, told apart by their first bytes."""

    suffixes: tuple[str, ...] = (".png", ".jpg", ".jpeg", ".bmp", ".webp")

    def header(self, path: str | Location) -> Header:
        """Read the header alone; see `Reader.header`.

        Raises:
            UnreadableFile: missing, empty, truncated, no image of these formats, or a size past the limits.
        """
        with self.open(path) as source:
            return source.header

    def open(self, path: str | Location) -> ImageSource:
        """Open for windowed reads; each decodes the whole image. See `Reader.open`.

        Raises:
            UnreadableFile: as `header`.
        """
        path = located(path)
        file, head = open_with_head(path)
        try:
            return ImageSource(file, *_read_header(head, path))
        except BaseException:
            file.close()
            raise


class ImageSource:
    """An open image; owns its file. Nothing is kept between reads, so threads need no lock."""

    def __init__(self, file: ByteFile, header: Header, facts: _Facts) -> None:
        self.header = header
        self._file, self._facts = file, facts

    def read(self, window: Window) -> Pixels:
        """The pixels of `window`: x_HWC uint8 or uint16, and which are valid; see `Source.read`.

        Raises:
            UnreadableFile: the image is truncated or broken.
        """
        header = self.header
        assert window.intersect(header.window) == window, "a window must lie inside the image"
        data = read_bytes(self._file, 0, self._file.size_bytes)
        try:
            x_HWC = _decode(data, self._facts)
        except Exception as error:  # decoders raise a dozen unrelated kinds on hostile files
            raise unreadable(header.path, _reason(error)) from None
        if x_HWC.shape != (header.height, header.width, header.bands + header.has_alpha):
            raise unreadable(header.path, _("it decodes to another size than its header says"))
        x_HWC = x_HWC[window.slices]
        valid_HW = x_HWC[:, :, -1] != 0 if header.has_alpha else None
        x_HWC = np.ascontiguousarray(x_HWC[:, :, : header.bands], header.dtype)
        # A crop must not keep the whole image alive.
        x_HWC = x_HWC if x_HWC.base is None else x_HWC.copy()
        return Pixels(x_HWC, None if valid_HW is None or valid_HW.all() else valid_HW)

    def scratch_bytes(self, window: Window) -> int:
        """The most bytes that `read` holds beside its result: the file twice, the image twice."""
        header = self.header
        samples = max(header.bands + header.has_alpha, 4 if self._facts.mode in ("CMYK", "RGB") else 1)
        image = header.height * header.width * samples * header.dtype.itemsize
        return 2 * self._file.size_bytes + 2 * image + window.area_px * header.has_alpha

    def close(self) -> None:
        """Give the file back."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _codec(head: bytes) -> str | None:
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if head.startswith(b"BM"):
        return "bmp"
    return "webp" if head[:4] == b"RIFF" and head[8:12] == b"WEBP" else None


def _read_header(source: ByteFile, path: Location) -> tuple[Header, _Facts]:
    with io.BufferedReader(FileObject(source)) as file:
        head = file.read(32)
        codec = _codec(head)
        if codec is None:
            raise unreadable(
                path,
                _("it is not a PNG, JPEG, BMP or WebP image"),
                _("Check that its suffix tells what it is."),
            )
        file.seek(0)
        try:
            image = _PLUGINS[codec](file)
            frames = bool(getattr(image, "is_animated", False))
            facts = _Facts(codec, image.mode, _orientation(codec, image), _deep_samples(codec, head), frames)
            width, height = image.size
        except UnreadableFile:
            raise
        except Exception as error:  # Pillow's plugins raise a dozen unrelated kinds on hostile files
            raise unreadable(path, _reason(error)) from None
    size_bytes = source.size_bytes
    if height * width > size_bytes * _MOST_PIXELS_PER_BYTE.get(codec, height * width):
        raise unreadable(
            path,
            _("{size} bytes cannot hold the {height}×{width} pixels it claims").format(
                size=size_bytes, height=height, width=width
            ),
        )
    return _header(path, size_bytes, height, width, facts), facts


def _header(path: Location, size_bytes: int, height: int, width: int, facts: _Facts) -> Header:
    if facts.orientation >= 5:
        height, width = width, height
    if facts.deep_samples:
        bands, has_alpha = (
            (facts.deep_samples + 1) // 2 if facts.deep_samples < 3 else 3,
            facts.deep_samples % 2 == 0,
        )
    elif facts.mode in _BANDS:
        bands, has_alpha = _BANDS[facts.mode], facts.mode in _ALPHA
    else:
        raise unreadable(
            path,
            _("its pixels are of the kind “{mode}”").format(mode=facts.mode),
            _("Write it as RGB or grey."),
        )
    dtype = np.dtype(np.uint16 if facts.deep_samples else np.uint8)
    check_size(path, height, width, bands + has_alpha, dtype, (height, width))
    return Header(
        path,
        height,
        width,
        bands,
        dtype,
        (height, width),
        facts.codec,
        (),
        None,
        has_alpha,
        size_bytes,
        "animated" if facts.animated else "palette" if facts.mode == "P" else "",
    )


def _orientation(codec: str, image: ImageFile.ImageFile) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none, or nonsense."""
    if codec != "jpeg":
        return 1
    try:
        value = image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # a broken note about the image does not break the image
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _deep_samples(codec: str, head: bytes) -> int:
    return _PNG_SAMPLES.get(head[25], 0) if codec == "png" and len(head) > 25 and head[24] == 16 else 0


def _reason(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__).rstrip(".")


def _decode(data: bytes, facts: _Facts) -> Array:
    """The whole image, upright: x_HWC of all samples."""
    if facts.deep_samples:
        x: Array = np.asarray(imagecodecs.png_decode(data))
    elif facts.codec == "jpeg":
        x = _upright(_decode_jpeg(data, facts.mode), facts.orientation)
    else:
        x = _decode_pillow(data, facts)
    return x if x.ndim == 3 else x[:, :, None]


def _decode_jpeg(data: bytes, mode: str) -> Array:
    if mode in ("L", "RGB"):
        try:
            x: Array = simplejpeg.decode_jpeg(data, colorspace="GRAY" if mode == "L" else "RGB")
        except ValueError:  # strict where Pillow forgives stray bytes; Pillow still refuses a truncated file
            pass
        else:
            return x
    return _decode_pillow(data, _Facts("jpeg", mode, 1, 0))


def _decode_pillow(data: bytes, facts: _Facts) -> Array:
    with _PLUGINS[facts.codec](io.BytesIO(data)) as image:
        image.load()
        if image.mode != facts.mode:
            raise ValueError(f"mode {image.mode} where the header has {facts.mode}")
        x: Array = np.asarray(image.convert("RGB") if image.mode in ("CMYK", "RGBX") else image)
    return x.astype(np.uint8) if x.dtype == np.bool_ else x


def _upright(x: Array, orientation: int) -> Array:
    """Undo an EXIF orientation; the numbers are those of the EXIF standard, 2.3 §4.6.4."""
    if orientation >= 5:
        x = x.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        x = x[::-1]
    if orientation in (2, 3, 6, 7):
        x = x[:, ::-1]
    return x

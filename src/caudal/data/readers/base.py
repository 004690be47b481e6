"""The contract of a reader: headers without pixels, then windows of pixels.

Arrays are `x_HWC`: rows, columns, bands. That is how pixel-interleaved files lie on disk, and a batch of
them is a channels-last tensor without a copy.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Protocol, Self

import numpy as np
import numpy.typing as npt

from caudal.core.geometry import Window
from caudal.core.messages import _
from caudal.data.unreadable import unreadable
from caudal.data.url import Location

# A header may claim anything. Past these it is refused before a byte of pixels is read.
MAX_PIXELS = 2**40
MAX_BANDS = 1024
MAX_BLOCK_BYTES = 2**30

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of itself; no pixel was read for it.

    `bands` counts the bands that carry data: an alpha band is not one of them, it says which pixels are
    valid. `block` is the (height, width) in pixels of the smallest piece that is decoded at once: the
    whole image where a format has no smaller one. `size_bytes` is what the file takes where it lies.
    `oddity` is "palette" where values are numbers of colours, "animated" where there are further frames.
    """

    path: Location
    height: int
    width: int
    bands: int
    dtype: np.dtype[Any]
    block: tuple[int, int]
    codec: str
    band_names: tuple[str, ...]
    nodata: float | None
    has_alpha: bool
    size_bytes: int = 0
    oddity: Literal["", "palette", "animated"] = ""

    @property
    def pixel_bytes(self) -> int:
        """Decoded bytes of one pixel, all bands."""
        return self.bands * self.dtype.itemsize

    @property
    def decoded_bytes(self) -> int:
        """Decoded bytes of the whole image."""
        return self.height * self.width * self.pixel_bytes

    @property
    def window(self) -> Window:
        """The whole image."""
        return Window(0, 0, self.height, self.width)


@dataclass(frozen=True, slots=True)
class Pixels:
    """A window's pixels: `x_HWC` in the file's dtype, and `valid_HW` (bool), `None` when all are valid.

    A pixel is not valid where a band is NaN, where every band equals the file's nodata value, or where
    alpha is 0.
    """

    x_HWC: Array
    valid_HW: npt.NDArray[np.bool_] | None


class Source(Protocol):
    """An open file. `read` may be called from several threads at once."""

    header: Header

    def read(self, window: Window) -> Pixels:
        """The pixels of `window`, which must lie inside the image; each block it touches is decoded once.

        Raises:
            UnreadableFile: a block is missing, truncated or broken.
        """
        ...

    def scratch_bytes(self, window: Window) -> int:
        """The most bytes that `read(window)` holds beside its result (encoded and decoded blocks)."""
        ...

    def close(self) -> None:
        """Give the file back."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Reader(Protocol):
    """What understands one family of files."""

    suffixes: tuple[str, ...]

    def header(self, path: str | Location) -> Header:
        """Read the header alone. A text is what `located` takes: a path or a URL.

        Raises:
            UnreadableFile: missing, empty, truncated, another format, or a size past the limits above.
        """
        ...

    def open(self, path: str | Location) -> Source:
        """Open for windowed reads.

        Raises:
            UnreadableFile: as `header`.
        """
        ...


def check_size(
    path: Location, height: int, width: int, bands: int, dtype: np.dtype[Any], block: tuple[int, int]
) -> None:
    """Refuse a header whose claims no honest file makes, before anything is allocated for it.

    Raises:
        UnreadableFile: no pixels, or more pixels, bands or bytes a block than the limits above.
    """
    block_bytes = block[0] * block[1] * bands * dtype.itemsize
    if min(height, width, bands, *block) < 1:
        why = _("it holds no pixel")
    elif height * width > MAX_PIXELS or bands > MAX_BANDS:
        why = _("its header claims {height}×{width} pixels in {bands} bands").format(
            height=height, width=width, bands=bands
        )
    elif block_bytes > MAX_BLOCK_BYTES:
        why = _("one block of it would decode to {bytes} bytes").format(bytes=block_bytes)
    else:
        return
    hint = _("Check how the file was made; if it is right, write it again with smaller blocks.")
    raise unreadable(path, why, hint)


def valid_mask(x_HWC: Array, nodata: float | None) -> npt.NDArray[np.bool_] | None:
    """Which pixels are valid by their own values (see `Pixels`); `None` when all are."""
    # Band by band: numpy is several times slower along a short last axis.
    bad: npt.NDArray[np.bool_] | None = None
    if x_HWC.dtype.kind == "f" and (nan := np.isnan(x_HWC)).any():
        bad = functools.reduce(np.logical_or, (nan[..., band] for band in range(nan.shape[2])))
    if nodata is not None and not np.isnan(nodata) and (same := x_HWC == nodata).any():
        empty = functools.reduce(np.logical_and, (same[..., band] for band in range(same.shape[2])))
        bad = empty if bad is None else bad | empty
    return None if bad is None or not bad.any() else ~bad

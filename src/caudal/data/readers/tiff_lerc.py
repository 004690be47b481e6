"""A TIFF's LERC blocks into pixels, by imagecodecs. Knows no tag.

A block is one blob with all samples of a pixel side by side, or one blob for each sample; both may be packed
once more by DEFLATE or ZSTD. A mask says which pixels have no value: floats are then NaN, and of 8-bit
pictures with alpha it is the alpha.

Blobs follow the header that Esri's LERC library (Apache 2.0) writes, versions 2.3 to 2.6. The library trusts
what lies in a blob once its checksum is right: damage is found, a blob forged with care may crash it. Blobs
before 2.3 have no checksum and are refused.
"""

from __future__ import annotations

import struct

import imagecodecs
import numpy as np

from caudal.core.messages import _
from caudal.data.readers.base import Array

# The second value of LercParameters, as the names of codecs have it.
PACKINGS = {0: "", 1: "_deflate", 2: "_zstd"}

_MAGIC = b"Lerc2 "
_VERSIONS_WITH_CHECKSUM = (3, 4, 5, 6)
_LEAST_BYTES = 42
_SPARE_BYTES = 2**14


def decode_lerc(
    block: bytes, packing: int, shape: tuple[int, int, int], dtype: np.dtype[np.generic], has_alpha: bool
) -> Array:
    """The pixels of a block of `shape`, (height, width, samples).

    Raises:
        ValueError: another size or type than that, a mask where none can be, truncated, or damaged; the
            message is a clause.
    """
    height, width, samples = shape
    try:
        size = height * width * samples * dtype.itemsize
        data = _unpacked(block, packing, size + size // 4 + _SPARE_BYTES)
        blobs, depth = _blobs(data, height, width)
        alpha = int(has_alpha and dtype == np.uint8 and (blobs, depth) == (1, samples - 1))
        if (blobs, depth) != (samples, 1) and (blobs, depth) != (1, samples - alpha):
            raise ValueError(_("it decodes to another size"))
        x, valid = imagecodecs.lerc_decode(data, masks=True)
    except (imagecodecs.LercError, imagecodecs.DeflateError, imagecodecs.ZstdError) as error:
        raise ValueError(str(error)) from None
    if x.dtype != dtype or x.size != height * width * (samples - alpha):
        raise ValueError(_("it decodes to another size"))
    x_HWC: Array = np.moveaxis(x, 0, 2) if blobs > 1 else x.reshape(height, width, depth)
    if alpha:
        opaque_HW = np.ones((height, width), np.bool_) if valid is None else valid
        return np.dstack([x_HWC, opaque_HW * np.uint8(255)])
    if valid is not None:
        if dtype.kind != "f":
            raise ValueError(_("it has pixels without a value"))
        x_HWC[~(np.moveaxis(valid, 0, 2) if valid.ndim > 2 else valid)] = np.nan
    return x_HWC


def _unpacked(block: bytes, packing: int, most_bytes: int) -> bytes:
    """The blobs of a block, refused where they take more than `most_bytes`."""
    if packing == 1:
        return bytes(imagecodecs.deflate_decode(block, out=most_bytes))
    if packing == 2:
        return bytes(imagecodecs.zstd_decode(block, out=most_bytes))
    return block


def _blobs(data: bytes, height: int, width: int) -> tuple[int, int]:
    """How many blobs lie in `data`, and the samples in each; all of that size, or nothing is allocated.

    Raises:
        ValueError: another size, or no blob.
    """
    count = depth = at = 0
    while data[at : at + 6] == _MAGIC and len(data) >= at + _LEAST_BYTES:
        version, _checksum, rows, columns, *others = struct.unpack_from("<iI6i", data, at + 6)
        samples, size = (others[0], others[3]) if version > 3 else (1, others[2])
        if version not in _VERSIONS_WITH_CHECKSUM or size < _LEAST_BYTES:
            raise ValueError(_("its LERC header is damaged"))
        if (rows, columns) != (height, width) or (count and samples != depth):
            raise ValueError(_("it decodes to another size"))
        count, depth, at = count + 1, samples, at + size
    if not count:
        raise ValueError(_("its LERC header is damaged"))
    return count, depth

"""Whether images to score, and their masks, belong together: from headers, before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence

from caudal.core.errors import DataError
from caudal.core.messages import _
from caudal.data.index import check_size, odd_warnings
from caudal.data.mvtec import Judged
from caudal.data.readers import reader_for


def check_judged(judged: Sequence[Judged], bands: int) -> list[str]:
    """Make sure that images to score have so many bands, and masks of their size; says what is odd of them.

    Raises:
        BadPair: a mask has another size than its image.
        DataError: an image has another number of bands.
        UnreadableFile: a file cannot be read.
    """
    odd = []
    for one in judged:
        header = reader_for(one.path).header(one.path)
        if header.bands != bands:
            raise DataError(
                _("{path} has {found} bands, and what is learned has {wanted}.").format(
                    path=one.path, found=header.bands, wanted=bands
                ),
                _("Use images with the same bands."),
                path=str(one.path),
            )
        if one.mask is not None:
            check_size(header, reader_for(one.mask).header(one.mask))
        if header.oddity:
            odd.append(header)
    return odd_warnings(odd)

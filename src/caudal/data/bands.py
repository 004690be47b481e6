"""Which band is which: layouts of a data set, and the order that brings them together.

Files of one set may hold the same bands in another order, or under another name (a true-colour
composite instead of reflectance). Bands are matched by name, through the few names that stand for the
same part of the spectrum; each layout keeps its own normalization, because its scale may differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from caudal.core.errors import DataError
from caudal.core.messages import _
from caudal.data.readers.base import Header

# Names for one part of the spectrum, after removing case, spaces and leading zeros of a number.
# Sentinel-2 names and the true-colour composite's, from the mission's product specification.
_SAME = (
    {"b2", "blue", "tci_b", "b"},
    {"b3", "green", "tci_g", "g"},
    {"b4", "red", "tci_r", "r"},
    {"b8", "nir", "nir08"},
    {"b11", "swir16", "swir1"},
    {"b12", "swir22", "swir2"},
)


def common_name(name: str) -> str:
    """The name under which a band is matched: `B02`, `Blue` and `TCI_B` give the same."""
    plain = name.strip().lower().replace(" ", "_")
    if len(plain) == 3 and plain[0] == "b" and plain[1] == "0":
        plain = "b" + plain[2]
    return next((min(group) for group in _SAME if plain in group), plain)


@dataclass(frozen=True, slots=True)
class Layout:
    """How the files of one kind hold the model's bands.

    `order[k]` is the file's band that becomes the model's band k.
    """

    band_names: tuple[str, ...]
    dtype: np.dtype[Any]
    order: tuple[int, ...]

    @property
    def is_plain(self) -> bool:
        """Whether the bands are taken as they come."""
        return self.order == tuple(range(len(self.order)))


def layout_of(header: Header, model_bands: tuple[str, ...], count: int) -> tuple[Layout, bool]:
    """The layout of one file for a model with `count` bands named `model_bands` (empty: unnamed).

    Returns the layout, and whether the bands had to be taken by position although the names differ.

    Raises:
        DataError: the file has another number of bands.
    """
    if header.bands != count:
        raise DataError(
            _("{path} has {found} bands and the others have {count}.").format(
                path=header.path, found=header.bands, count=count
            ),
            _("Train on files with the same bands, or bring them to the same ones first."),
            path=str(header.path),
        )
    plain = Layout(header.band_names, header.dtype, tuple(range(count)))
    if not header.band_names or not model_bands or header.band_names == model_bands:
        return plain, False
    found = [common_name(name) for name in header.band_names]
    wanted = [common_name(name) for name in model_bands]
    if sorted(found) != sorted(wanted) or len(set(found)) != len(found):
        return plain, True
    order = tuple(found.index(name) for name in wanted)
    return Layout(header.band_names, header.dtype, order), False

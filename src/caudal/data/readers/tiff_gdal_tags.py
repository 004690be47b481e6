"""What GDAL's own tags of a TIFF say: the names of bands (42112) and the value of missing pixels (42113)."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np

from caudal.data.readers.tiff_tags import Directory

# No match may begin inside another, or a long hostile text would be searched once for each of its characters.
_ITEM = re.compile(r"<Item\b([^<>]*)>([^<]*)</Item>")
_ATTRIBUTE = re.compile(r"\b(\w+)\s*=\s*[\"']([^\"']*)[\"']")
_ENTITIES = (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&apos;", "'"), ("&amp;", "&"))


def band_names(tags: Directory, bands: int) -> tuple[str, ...]:
    """Band descriptions from GDAL's metadata, matched as text: no XML parser sees a stranger's file."""
    names = [""] * bands
    for attributes, text in _ITEM.findall(tags.text(42112)):
        item = dict(_ATTRIBUTE.findall(attributes))
        sample = item.get("sample", "")
        if (
            item.get("name") == "DESCRIPTION"
            and sample.isdecimal()
            and len(sample) < 5
            and int(sample) < bands
        ):
            for entity, character in 2 * _ENTITIES:  # GDAL escapes a name twice
                text = text.replace(entity, character)
            names[int(sample)] = text
    return tuple(names) if any(names) else ()


def nodata_value(tags: Directory, dtype: np.dtype[Any]) -> float | None:
    """The value that marks missing pixels; `None` where the type cannot hold it, as GDAL has it."""
    try:
        value = float(tags.text(42113).strip().replace(",", "."))
    except ValueError:
        return None
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            held = float(dtype.type(value))
        return held if math.isfinite(held) or not math.isfinite(value) else None
    limits = np.iinfo(dtype)
    return value if value.is_integer() and limits.min <= value <= limits.max else None

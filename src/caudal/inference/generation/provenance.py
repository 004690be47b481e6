"""Pictures written with what made them: a PNG with the request, the parts, and that it was generated.

The text is JSON under the key `caudal`, and the machine-readable word for generated media of the IPTC
(`trainedAlgorithmicMedia`) under `DigitalSourceType`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from caudal.core.errors import UsageError
from caudal.core.files import write_whole
from caudal.core.messages import _
from caudal.tasks.generation.faces import Picture

KEY = "caudal"
_SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"


def write_picture(path: Path, x_HWC: Picture, facts: dict[str, Any] | None) -> None:
    """Write a PNG whole or not at all; with `facts`, they are in it.

    Raises:
        DiskFull: no space was left.
        UsageError: nothing can be written there.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    if facts is not None:
        info.add_itxt(KEY, json.dumps(facts, ensure_ascii=False))
        info.add_text("Software", "caudal")
        info.add_text("DigitalSourceType", _SOURCE)
    try:
        write_whole(path, lambda part: Image.fromarray(x_HWC).save(part, "PNG", pnginfo=info))
    except OSError as error:
        raise UsageError(
            _("{path} cannot be written: {why}.").format(path=path, why=error.strerror or error),
            _("Give another place with -o."),
        ) from None


def read_facts(path: Path) -> dict[str, Any] | None:
    """What a picture says of how it was made, or `None`."""
    from PIL import Image

    with Image.open(path) as image:
        text = getattr(image, "text", {}).get(KEY)
    values = None if text is None else json.loads(text)
    return values if isinstance(values, dict) else None

"""What must be said with every picture of a person: whose face it is, and what each part may be used for."""

from __future__ import annotations

import re
from pathlib import Path

from caudal.core.confined import check_path
from caudal.core.messages import _
from caudal.models.generation.layout import ModelFolder

_MOST_CARD_BYTES = 65536


def consent() -> str:
    """The notice that stands before every generation."""
    return _(
        "Use the face of another person only with that person's consent. Pictures carry an invisible mark "
        "and say in their data that they were generated."
    )


def licences(folder: ModelFolder, engine: str, engine_licence: str) -> dict[str, str]:
    """The licence of each part, as its own folder states it."""
    found = {
        "model": _stated(folder.base),
        "identity": _stated(folder.identity, folder.base),
        "adapter": _stated(folder.adapter.parent, folder.base),
        f"faces ({engine})": engine_licence,
    }
    return found | {kind: _stated(path) for kind, path in folder.controls.items()}


def caveat() -> str:
    """What a licence file of published identity parts does not say."""
    return _(
        "Identity networks that were trained with insightface's models are bound to research by the licence "
        "of those, whatever their own says."
    )


def _stated(folder: Path, above: Path | None = None) -> str:
    """From a model card's head, or the first line of a licence file; of the folder above if it is within."""
    card = folder / "README.md"
    if card.is_file():
        check_path(card)
        with card.open(encoding="utf-8", errors="replace") as file:
            head = file.read(_MOST_CARD_BYTES)
        if match := re.search(r"^license(?:_name)?:\s*(\S.*)$", head, re.MULTILINE):
            return match[1].strip()
    for path in sorted(folder.glob("LICENSE*")):
        check_path(path)
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.readline(200).strip() or path.name
    if above is not None and above != folder and above in folder.parents:
        return _stated(above)
    return _("not stated in its folder")

"""Names that machines give: 26 letters and digits that sort by the time at which they were made."""

from __future__ import annotations

import re
import secrets
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's: no i, l, o, u
_SHAPE = re.compile(f"[0-7][{_ALPHABET}]{{25}}")


def new_id() -> str:
    """A new name: 48 bits of milliseconds, then 80 of chance (the layout of a ULID)."""
    number = (int(time.time() * 1000) & (2**48 - 1)) << 80 | secrets.randbits(80)
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))


def is_id(text: str) -> bool:
    """Whether `text` could be such a name; says nothing of whether there is anything of that name."""
    return _SHAPE.fullmatch(text) is not None

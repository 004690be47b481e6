"""What people read, in their language.

`_("text")` marks a sentence and translates it. The language comes from `CAUDAL_LANG`, else from the
locale (`LC_ALL`, `LC_MESSAGES`, `LANG`); English when there is no catalogue for it. Facts are put in
after translation with `str.format`, so that a translator may move them.
"""

from __future__ import annotations

import gettext
import os
from functools import lru_cache
from pathlib import Path

LOCALE_DIR = Path(__file__).with_name("locale")


def language() -> str:
    """The language asked for, as two letters: `CAUDAL_LANG`, then the locale, then English."""
    for name in ("CAUDAL_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        value = os.environ.get(name, "")
        if value:
            code = value.split(".")[0].split("_")[0].lower()
            return "en" if code in ("c", "posix") else code
    return "en"


@lru_cache(maxsize=4)
def _catalogue(code: str) -> gettext.NullTranslations:
    return gettext.translation("caudal", LOCALE_DIR, languages=[code], fallback=True)


def _(text: str) -> str:
    """`text` in the language asked for, or `text` itself where it has no translation."""
    return _catalogue(language()).gettext(text)

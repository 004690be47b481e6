"""Saying in one sentence why a file cannot be read; it knows no format and opens nothing."""

from __future__ import annotations

from caudal.core.errors import UnreadableFile
from caudal.core.messages import _
from caudal.data.url import Location


def unreadable(path: Location | str, why: str, hint: str = "") -> UnreadableFile:
    """The error for a file whose content is the matter: the fact is `why`, a clause without a full stop.

    A text is shown as it is: of an address give a `Url`, or what `shown` made of it.
    """
    return UnreadableFile(
        _("{path} cannot be read: {why}.").format(path=path, why=why),
        hint or _("Fetch or write the file again; if that does not help, leave it out."),
        path=str(path),
    )

"""What the store refuses. HTTP status belongs to `problems.py`, which knows these by their `code`."""

from __future__ import annotations

from typing import ClassVar

from caudal.core.errors import CaudalError


class NotFound(CaudalError):
    """There is nothing of that name."""

    code: ClassVar[str] = "not_found"


class Conflict(CaudalError):
    """What is asked does not go with what is there: a state, a name that is taken, a key used twice."""

    code: ClassVar[str] = "conflict"


class StoreAway(CaudalError):
    """The database does not answer, or has no room; what was asked may be tried again."""

    code: ClassVar[str] = "store_away"

"""Exit codes: the only place where an error becomes a number."""

from __future__ import annotations

from caudal.core.errors import (
    BadModel,
    CaudalError,
    DataError,
    DeviceMissing,
    DoesNotFit,
    Interrupted,
    OutOfMemory,
    TimeIsUp,
    UsageError,
)

DONE, OTHER, USAGE, DOES_NOT_FIT, DATA, INTERRUPTED, DEVICE, MEMORY, TIME = 0, 1, 2, 3, 4, 5, 6, 7, 8

_CODES: list[tuple[type[CaudalError], int]] = [
    (UsageError, USAGE),
    (DoesNotFit, DOES_NOT_FIT),
    (DataError, DATA),
    (BadModel, DATA),
    (Interrupted, INTERRUPTED),
    (DeviceMissing, DEVICE),
    (OutOfMemory, MEMORY),
    (TimeIsUp, TIME),
]


def exit_code(error: CaudalError) -> int:
    """The exit code of an error; 1 for what has none of its own."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), OTHER)

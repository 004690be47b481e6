"""Everything that can go wrong for a user, in one tree.

    CaudalError
    ├── UsageError            wrong arguments, a spec that does not parse, a run folder that is taken
    ├── DoesNotFit            no plan stays inside the budget
    ├── OutOfMemory           memory ran out in a run whose plan fitted; the checkpoint is on disk
    ├── Diverged              a loss or a gradient is no finite number; the weights were not touched by it
    ├── DataError             the data cannot be used as it is
    │   ├── UnreadableFile    not there, not this format, truncated, hostile
    │   ├── BadPair           image and mask do not belong together
    │   ├── BadValues         no valid pixel, a mask value that is no class, one class alone
    │   └── TooManyBroken     more samples cannot be read than the user allowed
    ├── BadModel              a model file that is not one, or must not be opened
    ├── DeviceMissing         the device asked for is not here
    ├── DiskFull              no space left where something had to be written
    ├── WorkerDied            a process that worked for us ended by itself
    ├── IncompleteOutput      a result did not cover what it had to
    ├── TimeIsUp              the time limit was reached; the checkpoint is on disk
    └── Interrupted           stopped by the user; the checkpoint is on disk

Each error is one sentence with the fact (`message`), one with the mend (`hint`), a stable `code`, and
the facts themselves as attributes in `facts`. Exit codes belong to `cli/`, HTTP status to `service/`.
A mistake of ours is an `assert`, not one of these.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar


class CaudalError(Exception):
    """An error that a user can act upon: a fact, and the mend."""

    code: ClassVar[str] = "error"

    def __init__(self, message: str, hint: str = "", **facts: object) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.facts = facts

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class UsageError(CaudalError):
    """Arguments or a spec that cannot be understood."""

    code = "usage"


class DoesNotFit(CaudalError):
    """No plan stays inside the budget; says the least that would and who holds it."""

    code = "does_not_fit"


class OutOfMemory(CaudalError):
    """Memory ran out in a run whose plan fitted, and everything that gives some back was tried."""

    code = "out_of_memory"


class Diverged(CaudalError):
    """A loss or a gradient was no finite number; the checkpoints are those from before."""

    code = "diverged"


class DataError(CaudalError):
    """The data cannot be used as it is."""

    code = "data"


class UnreadableFile(DataError):
    """A file that is missing, truncated, of another format, or hostile."""

    code = "unreadable_file"

    def __init__(self, message: str, hint: str = "", *, path: Path | str, **facts: object) -> None:
        super().__init__(message, hint, path=str(path), **facts)
        self.path = Path(path)


class BadPair(DataError):
    """An image and a mask that do not belong together."""

    code = "bad_pair"


class BadValues(DataError):
    """Pixels or classes that nothing can be learned from."""

    code = "bad_values"


class TooManyBroken(DataError):
    """More samples cannot be read than the user allowed."""

    code = "too_many_broken"


class BadModel(CaudalError):
    """A model file that cannot, or must not, be opened."""

    code = "bad_model"


class DeviceMissing(CaudalError):
    """The device asked for is not on this machine."""

    code = "device_missing"


class DiskFull(CaudalError):
    """No space was left where something had to be written."""

    code = "disk_full"


class WorkerDied(CaudalError):
    """A process that was started to help ended without being asked to."""

    code = "worker_died"


class IncompleteOutput(CaudalError):
    """A result that does not cover what it had to cover."""

    code = "incomplete_output"


class TimeIsUp(CaudalError):
    """The run reached its time limit, with the last checkpoint on disk."""

    code = "timeout"


class Interrupted(CaudalError):
    """Stopped by the user, with the last checkpoint on disk."""

    code = "interrupted"


def to_record(error: CaudalError) -> dict[str, Any]:
    """An error for another process, as what JSON can hold."""
    facts = {key: value for key, value in error.facts.items() if isinstance(value, str | int | float | dict)}
    return {"code": error.code, "message": error.message, "hint": error.hint, "facts": facts}


def from_record(record: Mapping[str, Any]) -> CaudalError:
    """The error that `to_record` was given in another process."""
    kinds, left = dict[str, type[CaudalError]](), [CaudalError]
    while left:
        kind = left.pop()
        kinds.setdefault(kind.code, kind)
        left += kind.__subclasses__()
    kind = kinds.get(record["code"], CaudalError)
    return kind(record["message"], record["hint"], **record["facts"])

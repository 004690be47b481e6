"""Names the end of an attempt, from what its process left: its status, its last line, its log.

Looks at nothing itself. What the name means for the job is `ends.py`.
"""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from caudal.core.messages import _
from caudal.runs.supervisor import Ending as ProcessEnding
from caudal.service.ends import How
from caudal.service.records import Problem

Asked = Literal["cancel", "stop", "timeout"]

_TAIL_BYTES = 64 * 1024
_MOST_TOLD_BYTES = 16 * 2**20
_MOST_WARNINGS = 100  # a result is a part of every list that its job is in
_CODES: dict[str, How] = {
    "disk_full": "disk_full",
    "does_not_fit": "does_not_fit",
    "timeout": "timeout",
    "data": "data",
    "unreadable_file": "data",
    "bad_pair": "data",
    "bad_values": "data",
    "too_many_broken": "data",
    "bad_model": "data",
    "interrupted": "killed",  # somebody asked it who is not the service
    "out_of_memory": "oom_host",
    "oom_host": "oom_host",
    "oom_shm": "oom_shm",
}
_CRASHES = frozenset(
    {
        signal.SIGSEGV,
        signal.SIGABRT,
        signal.SIGFPE,
        signal.SIGILL,
        signal.SIGBUS,
        signal.SIGSYS,
        signal.SIGTRAP,
    }
)
_DEVICE_WORDS = ("cuda out of memory", "cuda error: out of memory", "cublas_status_alloc_failed")
_HOST_WORDS = ("memoryerror", "cannot allocate memory", "can't allocate memory")
_DISK_WORDS = ("no space left on device", "disk quota exceeded")


@dataclass(frozen=True, slots=True)
class Left:
    """What a process left: how it ended, the last line that it printed, the end of its log.

    `asked` is what its supervisor asked of it; `oom_kill` whether the kernel killed for want of memory since
    it began: then one of its own helpers may have gone first.
    """

    process: ProcessEnding
    told: dict[str, Any] | None
    log: str
    asked: Asked | None
    oom_kill: bool
    no_room: bool = False
    """The disk was full when it ended, so it may not even have been able to say so."""


def name(left: Left) -> tuple[How, Problem | None]:
    """The end's name, and the problem where there was one."""
    told = left.told or {}
    error = told.get("error") if isinstance(told.get("error"), dict) else None
    if left.process.reason == "ended" and left.process.code == 0 and left.told is not None and not error:
        return "succeeded", None
    if left.asked == "cancel":
        return "cancelled", None
    if left.asked == "timeout" or left.process.reason == "timeout":
        return "timeout", _problem("timeout", _("The time limit was reached."))
    how = _how(left, error)
    if left.asked == "stop" and how in ("killed", "error"):
        return "stopped", None
    return how, said(error) if error else _in_words(how, left)


def how_of(error: dict[str, Any]) -> How:
    """The name of an end that a verb tells of in its last line."""
    return _CODES.get(str(error.get("code", "")), "error")


def _how(left: Left, error: dict[str, Any] | None) -> How:
    process, log = left.process, left.log.lower()
    if process.reason == "oom_host" or process.reason == "oom_shm":
        return process.reason
    code = str(error.get("code", "")) if error else ""
    if code == "out_of_memory" and any(words in log for words in _DEVICE_WORDS):
        return "oom_device"
    if code in _CODES:
        return _CODES[code]
    if any(words in log for words in _DISK_WORDS) or (left.no_room and not error and not process.signal):
        return "disk_full"
    if any(words in log for words in _DEVICE_WORDS):
        return "oom_device"
    if process.signal and signal.Signals(process.signal) not in _CRASHES:
        return "killed"
    if left.oom_kill or any(words in log for words in _HOST_WORDS):
        return "oom_host"
    return "error"


def said(error: dict[str, Any]) -> Problem:
    """What a verb's last line tells of an error."""
    return Problem(
        code=str(error.get("code", "error")),
        message=str(error.get("message", "")),
        hint=str(error.get("hint", "")),
    )


def _in_words(how: How, left: Left) -> Problem:
    if how == "oom_host":
        return _problem(how, _("The system killed the run for want of memory."))
    if how == "oom_shm":
        return _problem(how, _("The run was ended because /dev/shm is full."))
    if how == "oom_device":
        return _problem(how, _("The memory of the GPU ran out."))
    if how == "disk_full":
        return _problem(how, _("No space was left on the disk."))
    if left.process.signal:
        return _problem(how, _("Signal {number} ended the run.").format(number=left.process.signal))
    last = next((line.strip() for line in reversed(left.log.splitlines()) if line.strip()), "")
    text = _("The run ended with code {code}: {last}").format(code=left.process.code, last=last[:500])
    return _problem(how, text)


def _problem(code: str, message: str) -> Problem:
    return Problem(code=code, message=message)


def last_told(path: Path) -> dict[str, Any] | None:
    """The JSON object in the last line of what a verb printed; `None` where it did not get that far."""
    return _told(tail(path, most=_MOST_TOLD_BYTES).rstrip("\r\n").rpartition("\n")[2])


def told_in(path: Path) -> dict[str, Any] | None:
    """The JSON object in the file of a result; `None` where there is none."""
    return _told(tail(path, most=_MOST_TOLD_BYTES))


def tail(path: Path, start: int = 0, most: int = _TAIL_BYTES) -> str:
    """The end of a file that was written since byte `start`."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(start, size - most))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


def _told(text: str) -> dict[str, Any] | None:
    """What is no number in JSON becomes nothing. Of very many warnings, the first are kept."""
    try:
        told = json.loads(text, parse_constant=lambda _constant: None)
    except json.JSONDecodeError:
        return None
    if not isinstance(told, dict):
        return None
    warnings = told.get("warnings")
    if isinstance(warnings, list) and (more := len(warnings) - _MOST_WARNINGS) > 0:
        rest = _("… and {count} more: see its log.").format(count=more)
        told["warnings"] = [*warnings[:_MOST_WARNINGS], rest]
    return told

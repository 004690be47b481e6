"""Keeps what a probe measured for an hour: who plans a run and then starts it waits for one measurement.

Only what was measured on the processor. What is free on a card, and who else is on it, is another thing a
minute later.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import caudal
from caudal.core.caches import keep, user_cache
from caudal.memory.cost import ProbeResult
from caudal.runs.probe import ProbeRequest
from caudal.runs.probe import ask as measure

KEPT_SECONDS = 3600.0
_LOOKED_AT = 64  # of the files in a folder: all of a stored model's


def ask(request: ProbeRequest) -> ProbeResult:
    """What was measured of the same request within the last hour, else what `probe.ask` measures now.

    Raises:
        DoesNotFit, CaudalError: as `probe.ask`; nothing is kept of these.
    """
    path = _folder() / f"{_key(request)}.json"
    with suppress(OSError, ValueError):
        if 0 <= time.time() - path.stat().st_mtime < KEPT_SECONDS:
            return ProbeResult.model_validate_json(path.read_text(encoding="utf-8"))
    found = measure(request)
    if found.device == "cpu":
        with suppress(OSError):  # where it cannot be kept it is measured again
            keep(path, found.model_dump_json())
            _forget_old(path.parent)
    return found


def _folder() -> Path:
    return user_cache() / "caudal" / "probes"


def _forget_old(folder: Path) -> None:
    for path in folder.iterdir():
        with suppress(OSError):
            if time.time() - path.stat().st_mtime >= KEPT_SECONDS:
                path.unlink()


def _key(request: ProbeRequest) -> str:
    """Two requests have the same one where the same code would measure the same files the same way."""
    # What takes least is looked for when a run was killed, whatever it will then be allowed: it cannot wait.
    unasked = {"beside", "least_arena", *(("ram",) if request.thrifty else ())}
    asked = request.model_dump(mode="json", exclude=unasked)
    files = {text: _changed(Path(text)) for text in _texts(asked) if Path(text).is_absolute()}
    code = max(path.stat().st_mtime_ns for path in Path(caudal.__file__).parent.rglob("*.py"))
    whole = [asked, files, code, version("torch"), sorted(os.sched_getaffinity(0))]
    return hashlib.blake2b(json.dumps(whole).encode(), digest_size=16).hexdigest()


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from _texts(one)
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)


def _changed(path: Path) -> int | None:
    """When a file, or a folder or one of its first files changed last, in ns; none where there is none."""
    try:
        times = [path.stat().st_mtime_ns]
        if path.is_dir():
            with os.scandir(path) as entries:
                times += [entry.stat().st_mtime_ns for entry in islice(entries, _LOOKED_AT)]
        return max(times)
    except (OSError, ValueError):
        return None

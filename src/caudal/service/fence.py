"""The fence of a job's folder: the number of the one attempt that may write there, on any machine.

Numbers come from the store and only grow. Who takes the fence makes all earlier ones useless: their
supervisors see it and end their work, and the work itself puts no file in place any more
(`caudal.runs.watched.heed_fence`).
"""

from __future__ import annotations

import fcntl
import shutil
from contextlib import suppress
from pathlib import Path

from caudal.core.files import write_whole

NAME = "fence"


class Overtaken(Exception):
    """A later attempt has the folder."""


def take(folder: Path, number: int, place: str) -> bool:
    """From now on attempt `number`, run at `place`, alone may write below `folder`.

    Returns whether the one before ran elsewhere, and may need a moment to see that it lost the folder.

    Raises:
        Overtaken: a later attempt has it already.
        DiskFull: there is no room for a file of one line.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f".{NAME}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before, where = read(folder)
        if before > number:
            raise Overtaken(str(folder))
        write_whole(folder / NAME, lambda part: part.write_text(f"{number} {place}\n", encoding="ascii"))
        elsewhere = where not in ("", place)
        if elsewhere:
            _cut_loose(folder / "run")
        return elsewhere


def read(folder: Path) -> tuple[int, str]:
    """The number that may write, and its place; 0 and nothing where nobody took the fence yet."""
    try:
        number, _space, where = (folder / NAME).read_text(encoding="ascii").strip().partition(" ")
        return int(number), where
    except (OSError, ValueError):
        return 0, ""


def _cut_loose(run: Path) -> None:
    """Give the run new files where somebody who is out of reach may still hold the old ones open."""
    events = run / "events.jsonl"
    if events.is_file():
        write_whole(events, lambda part: shutil.copyfile(events, part))
    with suppress(FileNotFoundError):
        (run / ".lock").unlink()

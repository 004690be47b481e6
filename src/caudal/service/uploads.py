"""Files that are sent: counted while they come, looked at before they get a name, then put in their place.

Nothing that is incomplete, too large or of a kind that is not taken is ever seen under a data set's name.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import stat
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio.to_thread
from starlette.requests import ClientDisconnect

from caudal.core.files import disk_full, is_disk_full, sync
from caudal.core.messages import _
from caudal.core.units import Bytes
from caudal.service import beneath
from caudal.service.ids import new_id
from caudal.service.metrics import Metrics
from caudal.service.problems import Refused
from caudal.service.sandbox import Sandbox
from caudal.service.serving import Limits

SPARE_BYTES = 256 * 2**20  # of the disk, for what jobs write
_PART = re.compile(r"[\w][^\x00-\x1f\x7f/\\:*?\"<>|]{0,119}")
_TAKEN_BY_WINDOWS = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")
_MOST_DEPTH = 8
_OLD_SECONDS = 86400.0
_LOOK_SECONDS = 20.0
_USED = "used"


def clean_name(name: str) -> str:
    """A name that a sent file may have in its data set, on any system.

    Raises:
        Refused: 422, it may not.
    """
    parts = name.split("/")
    fine = len(parts) <= _MOST_DEPTH and all(
        _PART.fullmatch(part) and not _TAKEN_BY_WINDOWS.fullmatch(part) and not part.endswith((".", " "))
        for part in parts
    )
    if not fine or len(name.encode("utf-8", "replace")) > 900:
        raise Refused(
            422,
            "name",
            _("A file cannot have that name here."),
            _("Use letters, digits, dots and dashes, and folders between slashes, like images/a.tif."),
        )
    return name


class Incoming:
    """A folder in which files wait until they are whole and looked at. Each server has its own."""

    def __init__(self, folder: Path, limits: Limits, sandbox: Sandbox, metrics: Metrics) -> None:
        self._limits, self._sandbox, self._metrics = limits, sandbox, metrics
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for left in folder.iterdir():
            if time.time() - left.stat().st_mtime > _OLD_SECONDS and not _is_used(left):
                shutil.rmtree(left, ignore_errors=True)
        self._folder = folder / new_id()
        self._folder.mkdir(mode=0o700)
        self._used = (self._folder / _USED).open("w")
        fcntl.flock(self._used, fcntl.LOCK_EX)

    def close(self) -> None:
        """Remove it with what is in it."""
        self._used.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def new(self, suffix: str) -> Path:
        """A name for a file that comes."""
        return self._folder / f"{new_id()}{suffix}"

    async def receive(
        self, stream: AsyncIterator[bytes], suffix: str, most_bytes: int, announced: int | None
    ) -> Path:
        """Write what comes into a file that nobody else sees; the caller removes it, or gives it a name.

        Raises:
            Refused: 413 past `most_bytes`.
            DiskFull: there is not enough room.
            ClientDisconnect: the sender went away.
        """
        self.refuse_size(announced or 0, most_bytes)
        path, count = self.new(suffix), 0
        try:
            with path.open("xb", buffering=0) as file:
                async for piece in stream:
                    count += len(piece)
                    self.refuse_size(count, most_bytes, known=True)
                    await anyio.to_thread.run_sync(file.write, piece)
                    self._metrics.uploaded.inc(len(piece))
            if announced is not None and count != announced:
                raise ClientDisconnect
        except BaseException as error:
            path.unlink(missing_ok=True)
            if is_disk_full(error):
                raise disk_full(Path("uploads")) from None
            raise
        return path

    def refuse_size(self, count: int, most_bytes: int, known: bool = False) -> None:
        """Refuse more bytes than are allowed, or than the disk has room for.

        Raises:
            Refused: 413.
            DiskFull: there is not enough room.
        """
        if count > most_bytes:
            raise Refused(
                413,
                "too_large",
                _("It is larger than {most}, which is all that is taken.").format(most=Bytes(most_bytes)),
                _("Send less, or raise the limit of the service."),
            )
        if not known and count + SPARE_BYTES > shutil.disk_usage(self._folder).free:
            raise disk_full(Path("uploads"))

    def examine(self, path: Path) -> dict[str, Any]:
        """The facts of a file that came; see `examine.py`.

        Raises:
            Refused: 413, 415, 422: not taken.
            DataError: broken.
        """
        return self._sandbox.ask("examine", _LOOK_SECONDS, path=str(path))[0]


def _is_used(folder: Path) -> bool:
    """Whether the server that made it is alive: it holds a lock for as long as it is."""
    try:
        with (folder / _USED).open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def held_by(root: Path, name: str) -> int | None:
    """The bytes of the file of that name below `root`; `None` where it would be new.

    Raises:
        Refused: 409, it cannot be placed there: a part of the name is no folder, or all of it is one.
    """
    *above, last = name.split("/")
    for depth in range(1, len(above) + 1):
        folder = _folder(root, above[: depth - 1])
        try:
            mode = os.stat(above[depth - 1], dir_fd=folder, follow_symlinks=False).st_mode
        except FileNotFoundError:
            return None
        finally:
            os.close(folder)
        if not stat.S_ISDIR(mode):
            raise _in_the_way()
    folder = _folder(root, above)
    try:
        about = os.stat(last, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
    finally:
        os.close(folder)
    if stat.S_ISDIR(about.st_mode):
        raise _in_the_way()
    return about.st_size


def place(path: Path, root: Path, name: str) -> None:
    """Move a file to its name below `root`. No link is followed.

    Raises:
        Refused: 409, a part of the name is no folder.
    """
    sync(path)
    parts = name.split("/")
    for depth in range(1, len(parts)):
        _make_folder(root, parts[:depth])
    folder = _folder(root, parts[:-1])
    try:
        os.replace(path, parts[-1], dst_dir_fd=folder)
        os.fsync(folder)
    except IsADirectoryError:
        raise _in_the_way() from None
    finally:
        os.close(folder)


def _make_folder(root: Path, parts: list[str]) -> None:
    above = _folder(root, parts[:-1])
    try:
        with suppress(FileExistsError):
            os.mkdir(parts[-1], 0o755, dir_fd=above)
    finally:
        os.close(above)


def _folder(root: Path, parts: list[str]) -> int:
    try:
        return beneath.folder_below(root, parts)
    except Refused:
        raise _in_the_way() from None


def _in_the_way() -> Refused:
    return Refused(409, "in_the_way", _("A part of that name is no folder here."), _("Choose another name."))

"""Opening files below a folder, and nowhere else: no `..`, no absolute name, no symbolic link on the way.

Every part of a name is opened from the folder before it, so that nothing can be exchanged in between.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from caudal.core.messages import _
from caudal.service.problems import Refused, not_found

LONGEST = 1024
_MOST_PARTS = 32
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a pipe must not make us wait


def parts_of(name: str) -> list[str]:
    """The parts of a name as it stands in a request.

    Raises:
        Refused: 404 for a name that could lead elsewhere. It is not said which of the reasons it was.
    """
    parts = name.split("/")
    wrong = (
        not name
        or len(name) > LONGEST
        or len(parts) > _MOST_PARTS
        or "\\" in name
        or any(ord(letter) < 32 or ord(letter) == 127 for letter in name)
        or any(part in ("", ".", "..") or len(os.fsencode(part)) > 255 for part in _encodable(parts))
    )
    if wrong:
        raise _missing()
    return parts


def _encodable(parts: list[str]) -> list[str]:
    try:
        for part in parts:
            part.encode("utf-8")
    except UnicodeEncodeError:
        raise _missing() from None
    return parts


def _missing() -> Refused:
    return not_found(_("There is no such file."))


def folder_below(root: Path, parts: list[str]) -> int:
    """A folder below `root`, open; the caller closes it.

    Raises:
        Refused: 404 if there is none, or a link is on the way.
    """
    try:
        here = os.open(root, _FOLDER & ~os.O_NOFOLLOW)  # the root itself is the owner's choice
    except OSError:
        raise _missing() from None
    for part in parts:
        try:
            below = os.open(part, _FOLDER, dir_fd=here)
        except OSError:
            raise _missing() from None
        finally:
            os.close(here)
        here = below
    return here


def file_below(root: Path, name: str) -> int:
    """A plain file below `root`, open for reading; the caller closes it.

    Raises:
        Refused: 404 if there is no plain file of that name, or a link is on the way.
    """
    parts = parts_of(name)
    folder = folder_below(root, parts[:-1])
    try:
        file = os.open(parts[-1], _FILE, dir_fd=folder)
    except OSError:
        raise _missing() from None
    finally:
        os.close(folder)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise _missing()
    return file


def path_below(root: Path, name: str) -> Path:
    """The path of a file or folder below `root`, without any link on the way; `""` is the root.

    Raises:
        Refused: 404 if there is none.
    """
    if not name:
        os.close(folder_below(root, []))
        return root
    parts = parts_of(name)
    folder = folder_below(root, parts[:-1])
    try:
        mode = os.stat(parts[-1], dir_fd=folder, follow_symlinks=False).st_mode
    except OSError:
        raise _missing() from None
    finally:
        os.close(folder)
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise _missing()
    return root.joinpath(*parts)


def files_below(root: Path, most: int = 200_000) -> Iterator[tuple[str, int, float]]:
    """Every plain file: its name from `root`, bytes, time of change; by name. Links and hidden ones are not.

    Ends after `most`.
    """
    seen = 0
    folders: list[list[str]] = [[]]
    while folders:
        parts = folders.pop()
        names: list[tuple[str, bool, int, float]] = []
        with suppress(Refused):
            folder = folder_below(root, parts)
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        with suppress(OSError):
                            about = entry.stat(follow_symlinks=False)
                            plain, below = stat.S_ISREG(about.st_mode), stat.S_ISDIR(about.st_mode)
                            if (plain or below) and not entry.name.startswith(".") and _shows(entry.name):
                                names.append((entry.name, below, about.st_size, about.st_mtime))
            finally:
                os.close(folder)
        names.sort()
        for name, below, size_bytes, changed in names:
            if not below:
                yield "/".join([*parts, name]), size_bytes, changed
                seen += 1
                if seen >= most:
                    return
        folders += [[*parts, name] for name, below, _size, _changed in reversed(names) if below]


def _shows(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True

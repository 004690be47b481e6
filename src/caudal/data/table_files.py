"""Finds files by the names that a table gives them: exactly those, or it says that there are several.

A name stands for a file whose path ends with it, folder by folder, with or without its suffix.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from caudal.core.errors import BadValues
from caudal.core.messages import _
from caudal.data.index import Names
from caudal.data.sample_files.base import Ints
from caudal.data.sample_listing import texts


@dataclass(frozen=True)
class _Keys:
    """Sorted hashes of the ends of paths, and the file of each."""

    hashes: Ints
    files: Ints


class FilesByName:
    """Two numbers a file and number of folders, as long as a table is read."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._keys: dict[int, _Keys] = {}

    def find(self, names: list[str], table: Path) -> list[int]:
        """The number of the file that each name stands for; -1 where there is none.

        Raises:
            BadValues: a name stands for several files.
        """
        found = np.full(len(names), -1, np.int64)
        plain = [_plain(name) for name in names]
        depths = np.array([name.count("/") for name in plain])
        hashes = np.array([hash(name) for name in plain], np.int64)
        for depth in np.unique(depths).tolist():
            keys = self._at(depth)
            mine = np.flatnonzero(depths == depth)
            first, last = (np.searchsorted(keys.hashes, hashes[mine], side) for side in ("left", "right"))
            for k, low, high in zip(mine.tolist(), first.tolist(), last.tolist(), strict=True):
                files = {f for f in keys.files[low:high].tolist() if _ends_with(self._names[f], plain[k])}
                if len(files) > 1:
                    exact = {f for f in files if _end(self._names[f], depth) == plain[k]}
                    files = exact or files
                if len(files) > 1:
                    a, b = (self._names[f] for f in sorted(files)[:2])
                    raise BadValues(
                        _("{table} names {name}, and {count} files are called so: {a}, {b} …").format(
                            table=table, name=names[k], count=len(files), a=a, b=b
                        ),
                        _("Write the folder before the name."),
                    )
                found[k] = files.pop() if files else -1
        numbers: list[int] = found.tolist()
        return numbers

    def _at(self, depth: int) -> _Keys:
        """The keys of the last `depth` folders and the name, with and without suffix."""
        if depth not in self._keys:
            count = len(self._names)
            hashes = np.empty(2 * count, np.int64)
            for k, name in enumerate(texts(self._names)):
                end = _end(name, depth)
                hashes[k], hashes[count + k] = hash(end), hash(_stem(end))
            order = np.argsort(hashes, kind="stable")
            self._keys[depth] = _Keys(hashes[order], (order % count).astype(np.int32))
        return self._keys[depth]


def _plain(name: str) -> str:
    """As paths are written here: forward slashes, no steps that lead nowhere."""
    name = name.strip().replace("\\", "/")
    if "//" in name or "./" in name:
        name = os.path.normpath(name).replace(os.sep, "/")
    return name


def _end(path: str, depth: int) -> str:
    """The last `depth` folders of a path, and the name."""
    path = path.replace(os.sep, "/")
    at = len(path)
    for _step in range(depth + 1):
        at = path.rfind("/", 0, at)
        if at < 0:
            return path
    return path[at + 1 :]


def _stem(end: str) -> str:
    dot = end.rfind(".")
    return end[:dot] if dot > end.rfind("/") + 1 else end


def _ends_with(path: str, name: str) -> bool:
    end = _end(path, name.count("/"))
    return name in (end, _stem(end))

"""Files that came are put into their data set: room and names are looked at first, then all of them go in.

For a data set one at a time, so that nothing changes between the look and the act. What it holds is noted
with it, so that nobody has to count a hundred thousand files to take one more.
"""

from __future__ import annotations

import stat
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from caudal.core.messages import _
from caudal.core.units import Bytes
from caudal.service import beneath
from caudal.service.problems import Refused
from caudal.service.records import Dataset
from caudal.service.serving import Limits
from caudal.service.store import Store
from caudal.service.uploads import held_by, place

_MOST_SURVEYED = 50_000
_LOCKS = [threading.Lock() for _number in range(64)]


def survey(path: Path, most: int = _MOST_SURVEYED) -> tuple[int, dict[str, Any]]:
    """Bytes and facts of a file or folder: how many files, and of which kinds.

    After `most` files it ends, and `whole` is false.
    """
    about = path.lstat()
    if stat.S_ISREG(about.st_mode):
        return about.st_size, {"files": 1, "kinds": {path.suffix.lower(): 1}, "whole": True}
    total, kinds, count = 0, Counter[str](), 0
    for name, size_bytes, _changed in beneath.files_below(path, most + 1):
        count += 1
        if count > most:
            break
        total += size_bytes
        kinds[_kind(name)] += 1
    return total, {"files": min(count, most), "kinds": dict(kinds), "whole": count <= most}


def _kind(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


class Filling:
    """Of all data sets that take files."""

    def __init__(self, store: Store, limits: Limits) -> None:
        self._store, self._most = store, int(limits.dataset)

    def room(self, dataset: Dataset) -> int:
        """The bytes that it may still take."""
        return max(0, self._most - self._counted(dataset.id).bytes)

    def fill(self, dataset: Dataset, files: Mapping[str, Path]) -> int:
        """Move files to their names in it: all of them, or none; how many of the names are new.

        Raises:
            NotFound: there is no such data set any more.
            Refused: 409 a part of a name is no folder, 413 no room.
        """
        root = Path(dataset.path)
        with _LOCKS[hash(dataset.id) % len(_LOCKS)]:
            now = self._counted(dataset.id)
            replaced = {name: held_by(root, name) for name in files}
            total = now.bytes + sum(path.stat().st_size for path in files.values())
            total -= sum(size_bytes or 0 for size_bytes in replaced.values())
            if total > self._most:
                raise Refused(
                    413,
                    "too_large",
                    _("The data set would hold {bytes}, and {most} are allowed.").format(
                        bytes=Bytes(total), most=Bytes(self._most)
                    ),
                    _("Send less, or raise the limit of the service."),
                )
            new = [name for name, size_bytes in replaced.items() if size_bytes is None]
            try:
                for name, path in files.items():
                    place(path, root, name)
            except BaseException:  # whatever it is: some files may be in place, and must be counted
                self._count(dataset.id, root)
                raise
            self._store.datasets.note(dataset.id, total, _with(now.facts, new))
            return len(new)

    def _counted(self, dataset_id: str) -> Dataset:
        dataset = self._store.datasets.get(dataset_id)
        return dataset if "files" in dataset.facts else self._count(dataset_id, Path(dataset.path))

    def _count(self, dataset_id: str, root: Path) -> Dataset:
        return self._store.datasets.note(dataset_id, *survey(root, 10**7))


def _with(facts: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    kinds = Counter[str](facts["kinds"])
    kinds.update(map(_kind, names))
    return {**facts, "files": sum(kinds.values()), "kinds": dict(kinds)}

"""The folders that data sets may be in, and nothing else of the disk.

A data set is stored with its path, which was found to be below a root; it is looked at again at each use.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from caudal.core.messages import _
from caudal.service import beneath
from caudal.service.places import Places, Veil
from caudal.service.problems import Refused, not_found
from caudal.service.records import Dataset
from caudal.service.serving import Serving
from caudal.service.settings import Settings


class Roots:
    """Named folders, and that of the uploads."""

    def __init__(self, settings: Settings, serving: Serving) -> None:
        self._roots = {name: path.expanduser().absolute() for name, path in serving.roots.items()}
        self.uploads = settings.home / "uploads"
        self.incoming = settings.home / "incoming"
        self.places = Places(serving.places)
        self.veil = Veil({**self._roots, "uploads": self.uploads, "home": settings.home})

    def names(self) -> list[str]:
        """Of the roots."""
        return sorted(self._roots)

    def folders(self) -> tuple[str, ...]:
        """All that data may be read from."""
        return tuple(map(str, (*self._roots.values(), self.uploads)))

    def other_names(self, name: str) -> dict[str, str]:
        """What the table of places calls a root elsewhere."""
        path = str(self._roots[name])
        found = {
            "windows": self.places.to(path, "server", "windows"),
            "wsl": self.places.to(path, "server", "wsl"),
        }
        return {kind: text for kind, text in found.items() if text}

    def folder(self, name: str) -> Path:
        """Where a root is.

        Raises:
            Refused: 404, no such root.
        """
        if name not in self._roots:
            raise not_found(_("There is no root of that name."))
        return self._roots[name]

    def allowed(self, root: str, below: str) -> Path:
        """A file or folder of a root.

        Raises:
            Refused: 404 if it is not there, or not to be reached without a link.
        """
        return beneath.path_below(self.folder(root), below.strip("/"))

    def find(self, place: str) -> tuple[str, str]:
        """The root and the name below it of what a person calls `place`, on Windows, in WSL or here.

        Raises:
            Refused: 403 if it is in no root. It is not said whether it exists.
        """
        path = self.places.here(place) if "\0" not in place else None
        normal = Path(os.path.normpath(path)) if path is not None and path.is_absolute() else None
        fitting = [
            (name, normal.relative_to(root))
            for name, root in self._roots.items()
            if normal is not None and normal.is_relative_to(root)
        ]
        if not fitting:
            raise Refused(
                403,
                "outside",
                _("That place is in none of the folders that the service may read."),
                _("Start it with --root NAME=FOLDER, or put the data into one of: {names}.").format(
                    names=", ".join(self.names()) or "—"
                ),
            )
        name, below = min(fitting, key=lambda row: len(row[1].parts))
        return name, "" if below == Path() else below.as_posix()

    def home_of(self, dataset: Dataset) -> tuple[Path, str]:
        """The root that a data set is in, and its name below it.

        Raises:
            Refused: 410 if its root is not one any more.
        """
        path = Path(dataset.path)
        for root in (self.uploads, *self._roots.values()):
            if path.is_relative_to(root):
                below = path.relative_to(root)
                return root, "" if below == Path() else below.as_posix()
        raise Refused(
            404,
            "root_gone",
            _("The folder of this data set is none that the service may read any more."),
            _("Name its root again when the service starts, or delete the data set."),
        )

    def path_of(self, dataset: Dataset, file: str = "") -> Path:
        """A file or folder of a data set.

        Raises:
            Refused: 404 if it is not there.
        """
        root, below = self.home_of(dataset)
        name = str(PurePosixPath(below) / "/".join(beneath.parts_of(file))) if file else below
        return beneath.path_below(root, "" if name == "." else name)

    def open(self, dataset: Dataset, file: str) -> int:
        """A file of a data set, open for reading; the caller closes it.

        Raises:
            Refused: 404 if it is not there.
        """
        root, below = self.home_of(dataset)
        parts = beneath.parts_of(file)
        return beneath.file_below(root, str(PurePosixPath(below, *parts)))

    def files(self, dataset: Dataset) -> Iterator[tuple[str, int, float]]:
        """The files of a data set: name, bytes, time of change."""
        yield from beneath.files_below(self.path_of(dataset))

r"""One folder under several names: `C:\scenes` on Windows, `/mnt/c/scenes` in WSL, `/data/scenes` here.

A table of prefixes, read in any direction; and the names under which a server's folders are shown to people.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from caudal.service.serving import Place

Kind = Literal["windows", "wsl", "server"]
_DRIVE = re.compile(r"[A-Za-z]:(?:[\\/]|$)")


def is_windows(text: str) -> bool:
    """Whether it is written with a drive."""
    return _DRIVE.match(text) is not None


def _parts(text: str, kind: Kind) -> list[str]:
    if kind == "windows":
        drive, _colon, rest = text.partition(":")
        return [drive.upper() + ":", *(part for part in re.split(r"[\\/]+", rest) if part)]
    return ["", *(part for part in text.split("/") if part)]


def _joined(parts: list[str], kind: Kind) -> str:
    head, separator = (parts[0], "\\") if kind == "windows" else ("", "/")
    return head + separator + separator.join(parts[1:])


def _starts(parts: list[str], prefix: list[str], kind: Kind) -> bool:
    head = parts[: len(prefix)]
    if kind != "windows":
        return head == prefix
    return [part.lower() for part in head] == [part.lower() for part in prefix]


class Places:
    """The table. The row with the longest prefix counts; a drive without a row is `/mnt/<letter>` in WSL."""

    def __init__(self, rows: Iterable[Place]) -> None:
        self._rows: list[dict[Kind, list[str]]] = []
        for row in rows:
            names: dict[Kind, str] = {"windows": row.windows, "wsl": row.wsl, "server": row.server}
            self._rows.append({kind: _parts(name, kind) for kind, name in names.items() if name})

    def to(self, text: str, source: Kind, target: Kind) -> str | None:
        """`text`, as `source` calls it, under the name that `target` has for it; `None` if there is none."""
        parts = _parts(text, source)
        if source == target:
            return _joined(parts, target)
        rows = [
            row
            for row in self._rows
            if source in row and target in row and _starts(parts, row[source], source)
        ]
        if rows:
            row = max(rows, key=lambda one: len(one[source]))
            return _joined([*row[target], *parts[len(row[source]) :]], target)
        if (source, target) == ("windows", "wsl") and len(parts[0]) == 2:
            return _joined(["", "mnt", parts[0][0].lower(), *parts[1:]], target)
        drive = parts[2] if parts[1:2] == ["mnt"] and len(parts) > 2 else ""
        if (source, target) == ("wsl", "windows") and re.fullmatch("[a-z]", drive):
            return _joined([drive.upper() + ":", *parts[3:]], target)
        return None

    def here(self, text: str) -> Path | None:
        """Where that is on the server which somebody calls `text`; `None` if it has no name here."""
        if is_windows(text):
            in_wsl = self.to(text, "windows", "wsl")
            found = self.to(text, "windows", "server")
            if found is None and in_wsl is not None:
                found = self.to(in_wsl, "wsl", "server") or in_wsl
        else:
            found = self.to(text, "wsl", "server") or text
        return Path(found) if found else None


class Veil:
    """Shows the names of roots instead of where they are: `/srv/scenes/a.tif` is `scenes:a.tif`."""

    def __init__(self, folders: Mapping[str, Path]) -> None:
        plain = {str(path): name for name, path in folders.items()}
        # As JSON has them, too.
        escaped = {json.dumps(path)[1:-1]: name for path, name in plain.items()}
        named = sorted((escaped | plain).items(), key=lambda row: -len(row[0]))
        self._names = dict(named)
        either = "|".join(re.escape(path) for path, _name in named)
        self._pattern = re.compile(rf"({either})(/|(?![\w.-]))") if named else None

    def __call__(self, text: str) -> str:
        """`text` with every known folder under its name."""
        if self._pattern is None or "/" not in text:
            return text
        return self._pattern.sub(lambda match: self._names[match[1]] + ":", text)

    def all(self, values: Any) -> Any:
        """The same in every text of a JSON value."""
        if isinstance(values, str):
            return self(values)
        if isinstance(values, Mapping):
            return {key: self.all(value) for key, value in values.items()}
        if isinstance(values, list | tuple):
            return [self.all(value) for value in values]
        return values

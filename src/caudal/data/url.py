"""The name of a file: a path on this machine, or an address elsewhere that prints without its secrets.

Opens nothing and lists nothing: that is `locations.py`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

WEB = ("http", "https")


@dataclass(frozen=True, order=True, slots=True, repr=False)
class Url:
    """An address in a store or on another machine; `address` is all of it, secrets too, and `str` is `shown`.

    It has those properties of a `Path` that need nothing but the name.
    """

    address: str

    def __str__(self) -> str:
        return shown(self.address)

    def __repr__(self) -> str:
        return f"Url({str(self)!r})"

    @property
    def name(self) -> str:
        """The last part."""
        return self._plain.rpartition("/")[2]

    @property
    def stem(self) -> str:
        """The last part without its suffix."""
        return PurePosixPath(self.name).stem

    @property
    def suffix(self) -> str:
        """The last part's ending from its last dot on; empty where there is none."""
        return PurePosixPath(self.name).suffix

    @property
    def parent(self) -> Url:
        """The folder it lies in; a bucket or a host lies in itself."""
        root, separator, _last = self._plain.rpartition("/")
        return Url(root) if separator and not root.endswith("/") else Url(self._plain)

    def __truediv__(self, below: str) -> Url:
        """What is called `below` from here; `..` leads to the parent, as it does in a path."""
        found = Url(self._plain)
        for part in below.split("/"):
            if part == "..":
                found = found.parent
            elif part not in ("", "."):
                found = Url(f"{found.address}/{part}")
        return found

    @property
    def _plain(self) -> str:
        """The address without what is no name; in a store a key may hold any character."""
        web = scheme_of(self.address) in WEB
        return (re.split(r"[?#]", self.address, maxsplit=1)[0] if web else self.address).rstrip("/")


Location = Path | Url
"""Where a file lies."""


def address_of(location: Location) -> str:
    """The text that names it whole, for storing; print `str` of the location instead."""
    return location.address if isinstance(location, Url) else str(location)


def shown(url: str) -> str:
    """`url` without what may be secret: user and password, query, fragment. Every message uses this name."""
    scheme, _separator, rest = url.partition("://")
    authority, slash, path = re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")
    return f"{scheme}://{authority.rpartition('@')[2]}{slash}{path}"


def scheme_of(url: str) -> str:
    """`s3` of `s3://…`, in lower case."""
    return url.partition("://")[0].lower()

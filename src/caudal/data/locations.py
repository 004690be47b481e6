"""Where data lies, as people write it: a path, `file://`, `s3://`, `https://` …, and which files are there.

Nothing of a file's content is read here: that is `byte_file.py` and `remote_file.py`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection
from pathlib import Path
from urllib.parse import unquote, urlsplit

from caudal.core.confined import check_path, check_remote
from caudal.core.messages import _
from caudal.data.byte_file import ByteFile, LocalFile
from caudal.data.paths import local_path
from caudal.data.remote_file import STORES, Pause, RemoteFile, connect, patiently, refused
from caudal.data.round_trips import PAGE_BYTES, Paged
from caudal.data.unreadable import unreadable
from caudal.data.url import WEB, Location, Url, scheme_of, shown
from caudal.data.walk import walk

Files = list[tuple[str, int]]

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")  # two letters at least: C:// is a drive


def is_remote(text: str) -> bool:
    """Whether `text` is an address of a store or another machine, and not a path or `file://`."""
    return bool(_URL.match(text)) and scheme_of(text) != "file"


def located(text: str | Location) -> Location:
    """Where that is which `text` names: a path of this system or of Windows, `file://`, or a URL.

    Raises:
        UsageError: a Windows path with nothing behind it here.
    """
    if not isinstance(text, str):
        return text
    return Url(text) if is_remote(text) else _path(text)


def relocated(address: str) -> Location:
    """The location whose `address_of` this is; a path is taken as it stands."""
    return Url(address) if is_remote(address) else Path(address)


def open_bytes(location: str | Location) -> ByteFile:
    """Open what `location` names; a text as `located` takes it.

    Raises:
        UnreadableFile: missing, no permission, empty, no answer, or a package is missing.
        UsageError: as `located`.
    """
    place = located(location)
    return RemoteFile(place.address) if isinstance(place, Url) else LocalFile(place)


def open_with_head(location: str | Location) -> tuple[ByteFile, ByteFile]:
    """Open it: the file, and a view of it for its header, whose many small reads are few requests.

    The view holds pages of a remote file: let it go when the header is read. Closing the file closes both.

    Raises:
        UnreadableFile, UsageError: as `open_bytes`.
    """
    place = located(location)
    if isinstance(place, Path):
        file = LocalFile(place)
        return file, file
    head = bytearray(PAGE_BYTES)
    remote = RemoteFile(place.address, head=memoryview(head))
    return remote, Paged(remote, bytes(memoryview(head)[: remote.size_bytes]))


def list_files(root: str, suffixes: Collection[str], *, pause: Pause = time.sleep) -> Files:
    """Every file below `root` whose name ends in one of `suffixes`, with its size in bytes, sorted by name.

    Names are whole, as `open_bytes` takes them: they carry whatever secrets `root` does, so print them
    through `shown`. Upper and lower case are the same in suffixes. Hidden files and folders are
    left out, links to folders are not followed. Where `root` is a file, it is the only one looked at.
    `pause` waits that many seconds before a remote listing is tried again.

    Raises:
        UnreadableFile: there is nothing of that name, it cannot be listed, or a package is missing.
        UsageError: a Windows path with nothing behind it here.
        DataError: it leads out of the folders that this process may read.
    """
    endings = tuple(suffix.lower() for suffix in suffixes)
    if not is_remote(root):
        return _on_disk(_path(root), endings)
    check_remote(shown(root))
    if scheme_of(root) in WEB:
        return _on_the_web(root, endings, pause)
    list_ = _in_store if scheme_of(root) in STORES else _by_fsspec
    files = patiently(list_(re.sub(r"(?<=[^:/])/+$", "", root)), shown(root), pause)
    return sorted(file for file in files if file[0].lower().endswith(endings))


def _path(location: str) -> Path:
    if not location.lower().startswith("file://"):
        return local_path(location)
    path = unquote(urlsplit(location).path)
    return local_path(path[1:] if re.match(r"/[A-Za-z]:[\\/]", path) else path)


def _on_disk(root: Path, endings: tuple[str, ...]) -> Files:
    check_path(root)
    try:
        if root.is_file():
            return [(str(root), root.stat().st_size)] if root.name.lower().endswith(endings) else []
        return sorted((entry.path, entry.stat().st_size) for entry in walk(str(root), endings))
    except OSError as error:  # one went away meanwhile
        why = error.strerror or str(error)
        raise unreadable(root, why, _("Check the path and its permissions.")) from None


def _on_the_web(url: str, endings: tuple[str, ...], pause: Pause) -> Files:
    name = shown(url)
    if not name.lower().endswith(endings):
        raise refused(
            name,
            _("a web server does not tell which files it has"),
            _("Name one file, or give a folder on disk or in a store (s3://, gs://, az://)."),
        )
    file = RemoteFile(url, pause=pause)
    file.close()
    return [(url, file.size_bytes)]


def _in_store(root: str) -> Callable[[], Files]:
    """A listing that goes on, when it is called again, where it broke off."""
    files: Files = []
    last: str | None = None

    def list_on() -> Files:
        nonlocal last
        store, folder = connect(root)
        for batch in store.list(folder or None, offset=last):
            for entry in batch:
                last = entry["path"]
                if below := _below(folder, last):
                    files.append((_joined(root, below), entry["size"]))
        if last is None and folder:  # it may be an object itself; if not, this raises
            files.append((root, store.head(folder)["size"]))
        return files

    return list_on


def _by_fsspec(root: str) -> Callable[[], Files]:
    def list_() -> Files:
        from fsspec.core import url_to_fs  # type: ignore[import-untyped]

        store, folder = url_to_fs(root)
        found = store.find(folder, detail=True)
        if not found:
            store.info(folder)  # raises where there is no such folder
        if list(found) == [folder]:
            return [(root, int(found[folder]["size"]))]
        return [
            (_joined(root, below), int(about["size"]))
            for name, about in found.items()
            if (below := _below(folder, name))
        ]

    return list_


def _below(folder: str, name: str) -> str:
    """`name` as it is called from `folder`; empty where a part of that starts with a dot."""
    below = name.lstrip("/").removeprefix(folder.strip("/")).lstrip("/")
    return "" if "/." in f"/{below}" else below


def _joined(root: str, below: str) -> str:
    return root + below if root.endswith("/") else f"{root}/{below}"

"""Bytes of an object in a store or on a web server, read by ranges; nothing of it is kept on disk.

obstore reads s3, gs, az and https without holding the interpreter's lock; fsspec reads what else it knows.
Which files there are is told by `locations.py`.

A URL may carry a password or a signature, and the libraries put URLs into their messages: so their text is
not shown, and names are cut by `shown`.
"""

from __future__ import annotations

import ipaddress
import os
import re
import threading
import time
from base64 import b64encode
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar
from urllib.parse import unquote_to_bytes, urlsplit

from caudal.core.confined import check_remote
from caudal.core.errors import UnreadableFile
from caudal.core.messages import _
from caudal.data.unreadable import unreadable
from caudal.data.url import WEB, scheme_of, shown

if TYPE_CHECKING:
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

STORES = ("s3", "gs", "az", *WEB)

_PAUSES_SECONDS = (0.2, 1.0)  # between one try and the next
_PATIENCE_SECONDS = 20.0  # no new try after this
_TIMEOUT_SECONDS = 60.0
_CONNECT_SECONDS = 5.0
_CHUNK_BYTES = 2**20
_SETTINGS = ("AWS_", "GOOGLE_", "AZURE_")

Pause = Callable[[float], object]
T = TypeVar("T")


class Version(NamedTuple):
    """What tells one content of an object from the next."""

    size_bytes: int
    tag: str


class _Object(Protocol):
    """One object, whichever library reads it. What it raises is explained by `patiently`."""

    def version(self) -> Version: ...

    def head_into(self, buffer: memoryview) -> tuple[int, Version]:
        """Fill `buffer` as far as the object reaches: how many bytes came, and of which version."""
        ...

    def read_into(self, offset: int, buffer: memoryview) -> tuple[int, Version]:
        """Fill `buffer`; how many bytes came (no more than one beyond it), and of which version."""
        ...


class RemoteFile:
    """An object that is open for reading; a `ByteFile`. One call of `read_into` is one request.

    What passes (a 5xx answer, a connection that breaks) is tried again, three times in all within seconds.
    """

    def __init__(self, url: str, *, head: memoryview | None = None, pause: Pause = time.sleep) -> None:
        """Ask for the size of `url`; `pause` waits that many seconds between tries.

        With the same request `head` is filled with its first bytes, as far as it has so many.

        Raises:
            UnreadableFile: not there, not allowed, empty, no answer, a server without range reads, or a
                package that is missing.
            DataError: this process may read some folders alone.
        """
        self.name = shown(url)
        check_remote(self.name)
        self._pause = pause
        self._closed = False
        self._object = patiently(lambda: _object(url), self.name, pause)
        if head is None:
            self._version = patiently(self._object.version, self.name, pause)
        else:
            count, self._version = patiently(lambda: self._object.head_into(head), self.name, pause)
        self.size_bytes = self._version.size_bytes
        if not self.size_bytes:
            raise refused(self.name, _("it is empty"))
        if head is not None:
            self._check_count(count, 0, min(len(head), self.size_bytes))

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """See `ByteFile.read_into`.

        Raises:
            UnreadableFile: it ends before, is not what it was when it was opened, or the network fails.
        """
        assert not self._closed, "the file was closed"
        end = offset + len(buffer)
        if end > self.size_bytes:
            raise refused(self.name, _("it ends before byte {end}").format(end=end))
        if not len(buffer):
            return
        count, version = patiently(
            lambda: self._object.read_into(offset, buffer), self.name, self._pause, offset
        )
        if version != self._version:
            raise refused(
                self.name,
                _("it was changed while it was read"),
                _("Start again when nobody writes it any more."),
            )
        self._check_count(count, offset, len(buffer))

    def _check_count(self, count: int, offset: int, wanted: int) -> None:
        if count != wanted:
            why = _("of {wanted} bytes asked for at byte {offset} came {count}")
            raise refused(self.name, why.format(wanted=wanted, offset=offset, count=count))

    def close(self) -> None:
        """Refuse further reads; connections are shared and close themselves when idle."""
        self._closed = True


def refused(name: str, why: str, hint: str = "") -> UnreadableFile:
    """The error for the object that is shown as `name`: the fact is `why`, a clause without a full stop."""
    return unreadable(name, why, hint or _("Try again later; if that does not help, leave it out."))


def connect(url: str) -> tuple[ObjectStore, str]:
    """The obstore client that reaches `url`, and the object's key in it. Connections are shared.

    A web address that is more than plain segments (signed, percent-encoded …) has a client of its own and no
    key, for only so it is asked for exactly as it was given.
    """
    scheme, rest = scheme_of(url), url.partition("://")[2]
    host, _slash, key = rest.partition("/")
    root = f"{scheme}://{host}"
    if scheme in WEB and not re.fullmatch(r"(?:[\w-][\w.-]*/)*[\w-][\w.-]*", key, re.ASCII):
        root, key = f"{scheme}://{rest}", ""
    settings = tuple(sorted(pair for pair in os.environ.items() if pair[0].startswith(_SETTINGS)))
    return _client(root, settings), key


@lru_cache(maxsize=64)
def _client(root: str, settings: tuple[tuple[str, str], ...]) -> ObjectStore:
    """A client for a bucket or a host, set up by the environment's `settings`."""
    from obstore.store import HTTPStore, from_url

    options: ClientConfig = {
        "timeout": f"{int(_TIMEOUT_SECONDS * 1000)}ms",
        "connect_timeout": f"{int(_CONNECT_SECONDS * 1000)}ms",
    }
    retries: RetryConfig = {"max_retries": 0}  # tries are counted in one place, `patiently`
    on_the_web = scheme_of(root) in WEB
    endpoints = [root] if on_the_web else [value for name, value in settings if "ENDPOINT" in name]
    if any(map(_is_loopback, endpoints)) or ("AWS_ALLOW_HTTP", "true") in settings:
        options["allow_http"] = True
    if not on_the_web:
        return from_url(root, client_options=options, retry_config=retries)
    login, at, _host = urlsplit(root).netloc.rpartition("@")
    if at:  # the client would pass over it
        options["default_headers"] = {"Authorization": f"Basic {b64encode(unquote_to_bytes(login)).decode()}"}
        root = root.replace(login + at, "", 1)
    # `from_url` would take some hosts for stores.
    return HTTPStore.from_url(root, client_options=options, retry_config=retries)


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _object(url: str) -> _Object:
    return _ByObstore(url) if scheme_of(url) in STORES else _ByFsspec(url)


class _ByObstore:
    """An object that obstore reads."""

    def __init__(self, url: str) -> None:
        self._store, self._key = connect(url)
        self._on_the_web = scheme_of(url) in WEB
        if not (self._key or self._on_the_web):
            raise IsADirectoryError

    def version(self) -> Version:
        if not self._on_the_web:
            return _version(self._store.head(self._key))
        # A signature often allows GET alone; and so a server without range reads is found out at once.
        return self.head_into(memoryview(bytearray(1)))[1]

    def head_into(self, buffer: memoryview) -> tuple[int, Version]:
        try:
            return self.read_into(0, buffer)
        except Exception as error:
            if _status(error) == 416:
                return 0, Version(0, "")
            raise

    def read_into(self, offset: int, buffer: memoryview) -> tuple[int, Version]:
        answer = self._store.get(self._key, options={"range": (offset, offset + len(buffer))})
        done = 0
        for chunk in answer.stream(min_chunk_size=min(len(buffer), _CHUNK_BYTES)):
            if done + len(chunk) > len(buffer):  # a server may send for ever
                return len(buffer) + 1, _version(answer.meta)
            buffer[done : done + len(chunk)] = memoryview(chunk)
            done += len(chunk)
        return done, _version(answer.meta)


def _version(meta: Any) -> Version:
    return Version(int(meta["size"]), str(meta["e_tag"] or meta["last_modified"]))


class _ByFsspec:
    """An object of a protocol that fsspec knows."""

    # One connection serves all files of a host, and not every library lets threads share one.
    _one_at_a_time = threading.Lock()
    _TAGS = ("ETag", "etag", "mtime", "last_modified", "LastModified", "modified", "created", "updated")

    def __init__(self, url: str) -> None:
        from fsspec.core import url_to_fs  # type: ignore[import-untyped]

        self._files, self._path = url_to_fs(url)
        self._turn = nullcontext() if self._files.async_impl else self._one_at_a_time

    def version(self) -> Version:
        with self._turn:
            about = self._files.info(self._path)
        if about.get("type") == "directory":
            raise IsADirectoryError
        return Version(int(about["size"]), repr([about.get(tag) for tag in self._TAGS]))

    def head_into(self, buffer: memoryview) -> tuple[int, Version]:
        version = self.version()  # not every library reads what is shorter than it was asked for
        part = buffer[: version.size_bytes]
        return self.read_into(0, part) if len(part) else (0, version)

    def read_into(self, offset: int, buffer: memoryview) -> tuple[int, Version]:
        with self._turn:
            data = self._files.cat_file(self._path, start=offset, end=offset + len(buffer))
        if len(data) == len(buffer):
            buffer[:] = data
        return len(data), self.version()  # asked for afterwards, so that no change slips through


def patiently(ask: Callable[[], T], name: str, pause: Pause, offset: int | None = None) -> T:
    """What `ask` gives, tried again after a pause where the trouble may pass.

    Raises:
        UnreadableFile: with the cause of the last failure, about the object shown as `name`.
    """
    start = time.monotonic()
    for wait_seconds in (*_PAUSES_SECONDS, None):
        try:
            return ask()
        except UnreadableFile:
            raise
        except Exception as error:  # the libraries raise dozens of unrelated kinds
            trouble = _explained(error)
            late = time.monotonic() - start > _PATIENCE_SECONDS
            if wait_seconds is None or late or not trouble.passes:
                why = trouble.why
                if offset is not None:
                    why = _("{why}, when asked for byte {offset}").format(why=why, offset=offset)
                raise refused(name, why, trouble.hint) from None
        pause(wait_seconds)
    raise AssertionError("the last try returns or raises")


@dataclass(frozen=True, slots=True)
class _Trouble:
    """Why a request failed, what mends it, and whether it may pass by itself."""

    why: str
    hint: str = ""
    passes: bool = False


def _status(error: Exception) -> int | None:
    """The HTTP status that obstore's error tells of."""
    found = re.search(r"status code: (\d{3})", str(error))
    return int(found[1]) if found else None


def _explained(error: Exception) -> _Trouble:
    """A library's error in our words, as its own may hold what is secret."""
    text, kind, status = str(error), type(error).__name__, _status(error)
    if isinstance(error, ImportError):
        return _missing(error)
    if isinstance(error, FileNotFoundError) or status == 404:
        return _Trouble(_("there is no such object"), _("Check the name."))
    if isinstance(error, IsADirectoryError):
        return _Trouble(_("it is a folder"), _("Name a file in it, or pass the folder as the data."))
    if "169.254.169.254" in text or "Account must be specified" in text:
        return _Trouble(
            _("no credentials were found for its store"),
            _(
                "Set them in the environment, for instance AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; "
                "for a public bucket set AWS_SKIP_SIGNATURE=true."
            ),
        )
    if isinstance(error, PermissionError) or kind in ("PermissionDeniedError", "UnauthenticatedError"):
        return _Trouble(
            _("permission is denied"),
            _("Check the name and the credentials in the environment; a signed address may have expired."),
        )
    if kind == "NotSupportedError":
        return _Trouble(
            _("its server does not do range reads"),
            _("Copy it to disk, or put it where parts of a file can be asked for."),
        )
    if "BadScheme" in text:
        return _Trouble(
            _("plain http is for this machine alone"),
            _("Use https; for a store in a network that you trust set AWS_ALLOW_HTTP=true."),
        )
    if "BareRedirect" in text:
        return _Trouble(_("its bucket is in another region"), _("Set AWS_REGION to the bucket's region."))
    if status == 416:
        return _Trouble(_("it is shorter than it was when it was opened"))
    if status is not None:
        return _Trouble(
            _("its server answers with status {status}").format(status=status),
            passes=status >= 500 or status in (408, 429),
        )
    if isinstance(error, OSError) or "HttpError" in text:
        silent = isinstance(error, TimeoutError) or "kind: Timeout" in text
        why = _("its server does not answer in time") if silent else _("the connection failed")
        return _Trouble(why, _("Check the network and the name of the host, and try again."), passes=True)
    if kind == "ValueError" and "Protocol not known" in text:
        return _Trouble(
            _("no way is known to read such an address"), _("Use s3://, gs://, az:// or https://.")
        )
    return _Trouble(_("the library that asks for it fails ({kind})").format(kind=kind), _("Check the name."))


def _missing(error: ImportError) -> _Trouble:
    package = (error.name or "").partition(".")[0]
    if package in ("obstore", "fsspec"):
        return _Trouble(
            _("the package {name} is not installed").format(name=package),
            _('Install it: pip install "caudal[remote]".'),
        )
    # fsspec says which package a protocol needs, and says nothing of the URL.
    return _Trouble(
        _("a package for this protocol is not installed"), _("{why}.").format(why=str(error).rstrip("."))
    )

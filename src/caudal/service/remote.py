"""Files on the web, fetched by the server itself: from hosts that are named, at addresses that are public.

A host's addresses are looked up once, checked, and then it is these that are connected to: what a name
server says later changes nothing. Each redirect is checked like a new request.
"""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urljoin, urlsplit

import httpx

from caudal.core.files import disk_full, is_disk_full
from caudal.core.messages import _
from caudal.core.units import Bytes
from caudal.data.url import shown
from caudal.service.problems import Refused

Resolve = Callable[[str, int], list[str]]
_PORTS = {"https": 443, "http": 80}
_MOST_REDIRECTS = 3
_SECONDS = 30.0
_PIECE_BYTES = 256 * 1024
_LOOK_BYTES = 64 * 2**20


def addresses(host: str, port: int) -> list[str]:
    """What the system says the addresses of a host are."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(one[4][0]) for one in found))


def is_public(address: str) -> bool:
    """Whether anybody on the Internet would reach the same machine there."""
    try:
        place = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(place, ipaddress.IPv6Address):
        inner = place.ipv4_mapped or place.sixtofour or (place.teredo or (None, None))[1]
        if inner is not None:
            return is_public(str(inner))
        if place in _NAT64:
            return is_public(str(ipaddress.IPv4Address(int(place) & 0xFFFFFFFF)))
    return place.is_global and not place.is_multicast and not place.is_reserved


_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def is_named(host: str, names: Iterable[str]) -> bool:
    """Whether a host is among `names`; `*.example.org` names all below that."""
    return any(
        host == name.lower() or (name.startswith("*.") and host.endswith(name[1:].lower())) for name in names
    )


def fetch(
    url: str,
    target: Path,
    hosts: Iterable[str],
    most_bytes: int,
    resolve: Resolve = addresses,
    public: Callable[[str], bool] = is_public,
    ports: Iterable[int] = (80, 443),
    seconds: float = 3600.0,
    room: Callable[[int], object] = lambda _bytes: None,
) -> int:
    """Write what is at `url` into `target`; the bytes.

    All of it takes no more than `seconds`. `room` is told how many bytes will come, 0 where nobody knows,
    and raises where the disk has no room for them.

    Raises:
        Refused: 403 a host that may not be asked, 413 too much, 422 no answer, not a good one or a slow one.
        DiskFull: there is not enough room.
    """
    until = time.monotonic() + seconds
    for _hop in range(_MOST_REDIRECTS + 1):
        place = _checked(url, hosts, ports)
        port = place.port or _PORTS[place.scheme]
        assert place.hostname
        try:
            found = resolve(place.hostname, port)
        except (OSError, UnicodeError):
            found = []
        if not found or not all(public(address) for address in found):
            raise _denied(_("That host has no public address."))
        redirect = _ask(place, found[0], port, target, _Allowed(most_bytes, seconds, until, room))
        if redirect is None:
            return target.stat().st_size
        url = urljoin(url, redirect)
    raise Refused(422, "remote", _("It leads from one address to another too often."), "")


def _checked(url: str, hosts: Iterable[str], ports: Iterable[int]) -> SplitResult:
    try:
        place = urlsplit(url)
        port = place.port
    except ValueError:
        raise _denied(_("That is no address.")) from None
    if place.scheme not in _PORTS or not place.hostname or place.username or place.password:
        raise _denied(_("Only addresses that begin with https:// and hold no password are fetched."))
    if (port or _PORTS[place.scheme]) not in ports:
        raise _denied(_("Only the usual ports are asked."))
    if not is_named(place.hostname.lower(), hosts):
        raise _denied(_("The host {host} is not among those that may be asked.").format(host=place.hostname))
    return place


@dataclass(frozen=True)
class _Allowed:
    """How much and how long."""

    most_bytes: int
    seconds: float
    until: float
    room: Callable[[int], object]

    def check(self, count: int) -> None:
        """Refuse so many bytes, or to go on for so long."""
        if count > self.most_bytes:
            raise Refused(
                413,
                "too_large",
                _("It is larger than {most}, which is all that is taken.").format(
                    most=Bytes(self.most_bytes)
                ),
                _("Fetch less, or raise the limit of the service."),
            )
        if time.monotonic() > self.until:
            raise Refused(
                422,
                "remote",
                _("It took more than {seconds:.0f} s.").format(seconds=self.seconds),
                _("Send the file yourself, or raise the limit of the service."),
            )


def _ask(place: SplitResult, address: str, port: int, target: Path, allowed: _Allowed) -> str | None:
    host = f"[{address}]" if ":" in address else address
    url = httpx.URL(place._replace(netloc=f"{host}:{port}", fragment="").geturl())
    headers = {"Host": place.netloc, "Accept-Encoding": "identity", "User-Agent": "caudal"}
    extensions = {"sni_hostname": place.hostname} if place.scheme == "https" else {}
    try:
        with (
            httpx.Client(follow_redirects=False, timeout=_SECONDS, trust_env=False) as client,
            client.stream("GET", url, headers=headers, extensions=extensions) as answer,
        ):
            if answer.is_redirect:
                return str(answer.headers.get("location", ""))
            if answer.status_code != 200 or answer.headers.get("content-encoding", "identity") != "identity":
                raise Refused(
                    422,
                    "remote",
                    _("{url} answers {status}.").format(url=shown(place.geturl()), status=answer.status_code),
                    "",
                )
            announced = answer.headers.get("content-length", "")
            coming = int(announced) if announced.isascii() and announced.isdigit() else 0
            allowed.check(coming)
            allowed.room(coming)
            count = looked = 0
            with target.open("xb") as file:
                for piece in answer.iter_raw(_PIECE_BYTES):
                    count += len(piece)
                    allowed.check(count)
                    if count - looked >= _LOOK_BYTES:
                        allowed.room(0)
                        looked = count
                    file.write(piece)
    except (httpx.HTTPError, OSError) as error:
        if is_disk_full(error):
            raise disk_full(Path("uploads")) from None
        raise Refused(
            422,
            "remote",
            _("{url} cannot be fetched.").format(url=shown(place.geturl())),
            _("Try again later, or send the file yourself."),
        ) from error
    return None


def _denied(fact: str) -> Refused:
    return Refused(
        403,
        "remote_denied",
        fact,
        _("The settings name the hosts that may be asked (remote_hosts); else send the file yourself."),
    )

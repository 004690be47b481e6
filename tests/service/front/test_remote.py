"""Files on the web: only from named hosts, only at public addresses, at each step of the way."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from caudal.core.errors import DiskFull
from caudal.core.files import disk_full
from caudal.service.problems import Refused
from caudal.service.remote import fetch, is_named, is_public
from tests.service.front.conftest import Front


class _Handler(BaseHTTPRequestHandler):
    hosts: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.hosts.append(self.headers["Host"])
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/to/"))
            self.end_headers()
            return
        self.send_response(200)
        if self.path == "/large":
            self.send_header("Content-Length", str(2**40))
        self.end_headers()
        self.wfile.write(b"a,b\n1,2\n")

    def log_message(self, *_given: object) -> None:
        pass


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


def get(url: str, target: Path, port: int, most: int = 1000, public: bool = True, **more: Any) -> int:
    """`fetch`, where files.example is the server on loopback, and inner.example is what it says."""
    known = {"files.example": ["127.0.0.1"], "two.example": ["127.0.0.1"], "inner.example": ["10.0.0.1"]}
    return fetch(
        url,
        target,
        ["files.example", "inner.example"],
        most,
        resolve=lambda host, _port: known[host],
        public=lambda address: public and address == "127.0.0.1",
        ports=(port,),
        **more,
    )


def test_a_file_of_a_named_host_is_fetched_at_the_address_that_was_checked(port: int, tmp_path: Path) -> None:
    url = f"http://files.example:{port}/a.csv"
    assert get(url, tmp_path / "a", port) == 8
    assert _Handler.hosts[-1] == f"files.example:{port}"
    assert get(f"http://files.example:{port}/to/{url}", tmp_path / "b", port) == 8


@pytest.mark.parametrize(
    "url",
    [
        "http://other.example:{port}/a.csv",
        "http://127.0.0.1:{port}/a.csv",
        "http://files.example:22/a.csv",
        "http://files.example/a.csv",
        "http://inner.example:{port}/a.csv",
        "http://files.example:{port}/to/http://other.example:{port}/",
        "http://files.example:{port}/to/http://inner.example:{port}/",
        "http://files.example:{port}/to/file:///etc/passwd",
        "http://user:pw@files.example:{port}/a.csv",
        "ftp://files.example:{port}/a.csv",
        "file:///etc/passwd",
        "gopher://files.example",
        "http://[::1]:{port}/",
        "http://files.example:x/",
        "//files.example/",
    ],
)
def test_whatever_else_is_refused_also_behind_a_redirect(port: int, tmp_path: Path, url: str) -> None:
    with pytest.raises(Refused) as refused:
        get(url.format(port=port), tmp_path / "a", port)
    assert refused.value.status_code == 403


def test_a_host_whose_address_is_private_is_refused_and_redirects_end(port: int, tmp_path: Path) -> None:
    with pytest.raises(Refused) as refused:
        get(f"http://files.example:{port}/a", tmp_path / "a", port, public=False)
    assert refused.value.status_code == 403
    url = f"http://files.example:{port}/"
    for _n in range(5):
        url = f"http://files.example:{port}/to/{url}"
    with pytest.raises(Refused) as refused:
        get(url, tmp_path / "b", port)
    assert refused.value.status_code == 422
    with pytest.raises(Refused) as refused:
        get(f"http://files.example:{port}/a", tmp_path / "c", port, most=3)
    assert refused.value.status_code == 413


def test_what_takes_too_long_or_has_no_room_is_not_fetched(port: int, tmp_path: Path) -> None:
    with pytest.raises(Refused) as refused:
        get(f"http://files.example:{port}/a", tmp_path / "a", port, seconds=-1.0)
    assert (refused.value.status_code, refused.value.code) == (422, "remote")
    with pytest.raises(Refused) as refused:
        get(f"http://files.example:{port}/large", tmp_path / "b", port, most=2**30)
    assert refused.value.status_code == 413
    asked: list[int] = []

    def room(count: int) -> None:
        asked.append(count)
        raise disk_full(Path("uploads"))

    with pytest.raises(DiskFull):
        get(f"http://files.example:{port}/large", tmp_path / "c", port, most=2**41, room=room)
    assert asked == [2**40]
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "0.0.0.0",
        "100.64.0.1",
        "224.0.0.1",
        "::1",
        "fe80::1",
        "fc00::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "2002:7f00:1::",
        "64:ff9b::7f00:1",
        "x",
        "255.255.255.255",
        "::",
    ],
)
def test_an_address_that_is_not_for_all_is_not_public(address: str) -> None:
    assert not is_public(address)
    assert is_public("93.184.215.14")
    assert is_public("2606:2800:21f:cb07:6820:80da:af6b:8b2c")


def test_a_pattern_names_what_is_below_it_alone() -> None:
    assert is_named("a.example.org", ["*.example.org"])
    assert not is_named("example.org.evil", ["*.example.org", "example.org"])
    assert not is_named("evilexample.org", ["*.example.org"])


def test_without_being_told_otherwise_nothing_is_fetched(front: Front) -> None:
    dataset = front.dataset()
    answer = front.post(
        f"/datasets/{dataset['id']}/fetch", {"url": "https://example.org/a.csv", "name": "a.csv"}
    )
    assert (answer.status_code, answer.json()["code"]) == (403, "remote_denied")

"""Bytes of a remote object are the local ones, or there is one sentence: never a hang, a mix, or a secret."""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
import numpy as np
import obstore
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caudal.core.errors import UnreadableFile
from caudal.data import locations, remote_file
from caudal.data.byte_file import ByteFile, LocalFile, read_bytes
from caudal.data.locations import is_remote, list_files, open_bytes
from caudal.data.remote_file import RemoteFile, connect
from caudal.data.url import Url, shown

CONTENT = np.random.default_rng(7).bytes(300_000)
CHANGED = "it was changed while it was read|it is shorter than it was"
SECRETS = ("alice", "hunter2", "c0ffee")


class _Answers(BaseHTTPRequestHandler):
    """One object, with range reads, in the manner that its server's `manner` says."""

    protocol_version = "HTTP/1.1"
    server: WebServer

    def do_GET(self) -> None:
        web = self.server
        web.asked.append(self)
        start, end = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"] or "").groups()  # type: ignore[union-attr]
        part = web.content[int(start) : int(end) + 1]
        first = int(end) == 0  # what opening asks for
        status = web.statuses.pop(0) if web.statuses else 206
        if status == 206 and not part:
            status = 416
        if web.manner == "hang" and not first:
            web.over.wait(30)
        if web.manner == "no ranges":
            status, part = 200, web.content
        self.send_response(status)
        if status not in (200, 206):
            part = b""
        elif status == 206:
            last = int(start) + len(part) - 1
            self.send_header("Content-Range", f"bytes {start}-{last}/{len(web.content)}")
        flood = 10**6 if web.manner == "flood" and not first else 1
        self.send_header("Content-Length", str(len(part) * flood))
        self.send_header("Last-Modified", web.changed)
        self.end_headers()
        if web.manner in ("cut", "flood") and not first:
            self.close_connection = True
            part = part[:1] if web.manner == "cut" else part
        try:
            for _ in range(flood):
                self.wfile.write(part)
        except ConnectionError:
            assert web.manner in ("flood", "hang", "no ranges")

    def log_message(self, *_: object) -> None: ...


class WebServer(ThreadingHTTPServer):
    """A web server on this machine; `statuses` are answered first."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.content = CONTENT
        self.changed = "Wed, 21 Oct 2015 07:28:00 GMT"
        self.manner = ""
        self.statuses: list[int] = []
        self.asked: list[_Answers] = []
        self.over = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}/folder/x.bin"


@pytest.fixture
def web() -> Iterator[WebServer]:
    with WebServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.over.set()
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The URL of an empty bucket on a real S3 server, with the environment that reaches it."""
    from moto.moto_server.threaded_moto_server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        request = urllib.request.Request(f"http://{host}:{port}/scenes", method="PUT")
        urllib.request.urlopen(request).close()
        yield "s3://scenes"
    server.stop()


def put(url: str, content: bytes) -> str:
    if url.startswith("s3:"):
        store, key = connect(url)
        obstore.put(store, key, content)
    else:
        fsspec.filesystem("memory").pipe_file(url.removeprefix("memory:/"), content)
    return url


def delete(url: str) -> None:
    if url.startswith("s3:"):
        store, key = connect(url)
        obstore.delete(store, key)
    else:
        fsspec.filesystem("memory").rm_file(url.removeprefix("memory:/"))


@pytest.fixture(params=["s3", "memory"])
def folder(request: pytest.FixtureRequest) -> str:
    """An address under which a test may put objects."""
    root = request.getfixturevalue("s3") if request.param == "s3" else "memory://scenes"
    return f"{root}/{request.node.name}"


def assert_one_sentence(error: UnreadableFile, why: str, name: str) -> None:
    assert re.search(why, error.message)
    assert name in error.message
    assert error.message.endswith(".")
    assert error.message.count(". ") == 0
    assert error.hint.endswith(".")
    assert not any(secret in str(error) for secret in SECRETS)


def assert_refused(why: str, name: str, do: Callable[[], object]) -> None:
    with pytest.raises(UnreadableFile) as caught:
        do()
    assert_one_sentence(caught.value, why, name)


# Bytes


@pytest.fixture(scope="module")
def stored(s3: str) -> RemoteFile:
    return RemoteFile(put(f"{s3}/años/a b%20+.bin", CONTENT))


@given(start=st.integers(0, len(CONTENT)), size=st.integers(0, 3000))
@settings(max_examples=30, deadline=None)
def test_any_range_over_s3_is_the_local_one(stored: RemoteFile, start: int, size: int) -> None:
    end = min(start + size, len(CONTENT))
    assert stored.size_bytes == len(CONTENT)
    assert read_bytes(stored, start, end - start) == CONTENT[start:end]


def test_any_range_over_the_web_and_fsspec_is_the_local_one(web: WebServer) -> None:
    for url in (web.url, put("memory://bytes/x", CONTENT)):
        file: ByteFile = RemoteFile(url)
        for start, end in ((0, 1), (0, len(CONTENT)), (len(CONTENT) - 1, len(CONTENT)), (777, 130_000)):
            assert read_bytes(file, start, end - start) == CONTENT[start:end]


@pytest.mark.parametrize("size", [1, 1000, len(CONTENT) - 1, len(CONTENT), len(CONTENT) + 1000])
def test_the_first_bytes_come_with_the_size(stored: RemoteFile, s3: str, web: WebServer, size: int) -> None:
    for url in (f"{s3}/años/a b%20+.bin", web.url, put("memory://bytes/head", CONTENT)):
        head = bytearray(size)
        web.asked.clear()
        assert RemoteFile(url, head=memoryview(head)).size_bytes == len(CONTENT)
        assert head.rstrip(b"\0") == CONTENT[:size].rstrip(b"\0")
        assert len(web.asked) == (url == web.url)


def test_several_threads_read_one_file(stored: RemoteFile) -> None:
    def part(start: int) -> bool:
        return read_bytes(stored, start, 5000) == CONTENT[start : start + 5000]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(part, range(0, len(CONTENT) - 5000, 5000)))


def test_a_read_beyond_the_end_asks_for_nothing(web: WebServer) -> None:
    file = RemoteFile(web.url)
    asked = len(web.asked)
    assert_refused(
        "ends before byte", web.url, lambda: file.read_into(len(CONTENT) - 1, memoryview(bytearray(2)))
    )
    assert len(web.asked) == asked


# Trouble


def test_an_object_that_is_not_there_or_empty(folder: str, web: WebServer) -> None:
    assert_refused("there is no such object", f"{folder}/none", lambda: RemoteFile(f"{folder}/none"))
    put(f"{folder}/empty", b"")
    web.content = b""
    for url in (f"{folder}/empty", web.url):
        assert_refused("it is empty", url, lambda url=url: RemoteFile(url))
        assert_refused("it is empty", url, lambda url=url: RemoteFile(url, head=memoryview(bytearray(9))))


def test_a_bucket_is_no_file_and_may_be_missing(s3: str) -> None:
    assert_refused("it is a folder", s3, lambda: RemoteFile(s3))
    assert_refused("there is no such", "s3://nobody", lambda: list_files("s3://nobody", [".pt"]))


@pytest.mark.parametrize("content", [CONTENT[:1000], CONTENT[:200_000], CONTENT + b"x", CONTENT[::-1]])
def test_an_object_that_changes_is_never_mixed(folder: str, content: bytes) -> None:
    url = put(f"{folder}/x", CONTENT)
    file = RemoteFile(url)
    assert read_bytes(file, 0, 10) == CONTENT[:10]
    put(url, content)
    assert_refused("it was changed while", url, lambda: read_bytes(file, 0, 10))
    assert_refused(CHANGED, url, lambda: read_bytes(file, 150_000, 100_000))
    delete(url)
    assert_refused("there is no such object", url, lambda: read_bytes(file, 0, 10))


def test_a_web_object_that_changes_is_never_mixed(web: WebServer) -> None:
    file = RemoteFile(web.url)
    web.changed = "Thu, 22 Oct 2015 07:28:00 GMT"
    assert_refused("it was changed while it was read", web.url, lambda: read_bytes(file, 0, 10))
    web.content = CONTENT[:1000]
    assert_refused("it was changed while it was read", web.url, lambda: read_bytes(file, 990, 100))
    assert_refused("it is shorter than it was", web.url, lambda: read_bytes(file, 2000, 10))


def test_what_passes_is_tried_again_after_a_pause(web: WebServer) -> None:
    pauses: list[float] = []
    web.statuses = [503, 429]
    file = RemoteFile(web.url, pause=pauses.append)
    assert len(pauses) == 2
    assert pauses[0] < pauses[1] < 5
    web.statuses = [500, 503]
    assert read_bytes(file, 5, 10) == CONTENT[5:15]
    assert len(pauses) == 4


def test_what_does_not_pass_ends_after_three_tries(web: WebServer) -> None:
    pauses: list[float] = []
    file = RemoteFile(web.url, pause=pauses.append)
    web.asked.clear()
    web.statuses = [503] * 9
    assert_refused("status 503, when asked for byte 5", web.url, lambda: read_bytes(file, 5, 10))
    assert (len(web.asked), len(pauses)) == (3, 2)


@pytest.mark.parametrize(
    ("status", "why"),
    [
        (400, "status 400"),
        (401, "permission is denied"),
        (403, "permission is denied"),
        (404, "no such object"),
    ],
)
def test_what_cannot_pass_is_tried_once(web: WebServer, status: int, why: str) -> None:
    web.statuses = [status] * 9
    assert_refused(why, web.url, lambda: RemoteFile(web.url))
    assert len(web.asked) == 1


@pytest.mark.parametrize(
    ("manner", "why", "tries"), [("cut", "the connection failed", 3), ("flood", "of 1000 bytes asked for", 1)]
)
def test_too_little_or_too_much_is_an_error(web: WebServer, manner: str, why: str, tries: int) -> None:
    file = RemoteFile(web.url, pause=lambda _: None)
    web.asked.clear()
    web.manner = manner
    assert_refused(why, web.url, lambda: read_bytes(file, 5, 1000))
    assert len(web.asked) == tries


def test_a_server_that_says_nothing_is_left(web: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_file, "_TIMEOUT_SECONDS", 0.2)
    monkeypatch.setattr(remote_file, "_PATIENCE_SECONDS", 0.1)
    file = RemoteFile(web.url)
    web.manner = "hang"
    start = time.monotonic()
    assert_refused("does not answer in time", web.url, lambda: read_bytes(file, 5, 10))
    assert time.monotonic() - start < 5


def test_a_host_that_is_not_there(web: WebServer) -> None:
    web.server_close()
    pauses: list[float] = []
    assert_refused("the connection failed", web.url, lambda: RemoteFile(web.url, pause=pauses.append))
    assert len(pauses) == 2


def test_a_server_without_range_reads(web: WebServer) -> None:
    web.manner = "no ranges"
    assert_refused("does not do range reads", web.url, lambda: RemoteFile(web.url))


def test_plain_http_goes_no_further_than_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ALLOW_HTTP", raising=False)
    url = "http://192.0.2.1/x.tif"  # an address that is nobody's
    assert_refused("plain http", url, lambda: RemoteFile(url, pause=lambda _: None))


@pytest.mark.parametrize(
    ("package", "url"),
    [("obstore", "s3://scenes/x"), ("obstore.store", "s3://scenes/x"), ("fsspec", "memory://x")],
)
def test_a_missing_package_is_named_with_its_mend(
    package: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote_file._client.cache_clear()
    for name in [name for name in sys.modules if name.split(".")[0] == package.split(".")[0]]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UnreadableFile, match="is not installed") as caught:
        RemoteFile(url)
    assert_one_sentence(caught.value, package.split(".")[0], url)
    assert 'pip install "caudal[remote]"' in caught.value.hint


def test_a_protocol_without_its_package_or_unknown() -> None:
    assert_refused("not installed", "sftp://host/x", lambda: RemoteFile("sftp://alice:hunter2@host/x"))
    assert_refused("no way is known", "nonsense://host/x", lambda: RemoteFile("nonsense://alice@host/x"))


@pytest.mark.parametrize("status", [206, 400, 401, 404, 416, 500])
def test_secrets_reach_the_server_and_no_message(web: WebServer, status: int) -> None:
    url = f"http://alice:hunter2@127.0.0.1:{web.server_port}/a%20b.tif?X-Amz-Signature=c0ffee#c0ffee"
    web.statuses = [status] * 9
    try:
        name = RemoteFile(url, pause=lambda _: None).name
    except UnreadableFile as error:
        assert_one_sentence(error, "", f"http://127.0.0.1:{web.server_port}/a%20b.tif")
        name = str(error.facts)
    assert not any(secret in name for secret in SECRETS)
    assert web.asked[0].path == "/a%20b.tif?X-Amz-Signature=c0ffee"
    assert web.asked[0].headers["Authorization"].startswith("Basic ")


@given(
    user=st.text("abc:@%", max_size=5),
    path=st.text("xyz/@. ", max_size=9),
    query=st.text("q=&?#/@", max_size=9),
)
def test_what_is_shown_has_neither_user_nor_query(user: str, path: str, query: str) -> None:
    assert shown(f"s3://{user}@host/{path}?{query}") == f"s3://host/{path}"
    assert shown(f"s3://host/{path}#{query}") == f"s3://host/{path}"
    assert str(Url(f"s3://{user}@host/{path}?{query}")) == f"s3://host/{path}"
    assert repr(Url(f"s3://{user}@host/{path}?{query}")) == f"Url('s3://host/{path}')"


SEGMENT = st.text("ab.ñ #?%", min_size=1, max_size=6).filter(lambda text: text not in (".", ".."))


@given(st.lists(SEGMENT, min_size=1, max_size=4))
def test_the_parts_of_an_address_are_those_of_the_path(parts: list[str]) -> None:
    path, url = PurePosixPath("/bucket", *parts), Url("s3://bucket/" + "/".join(parts))
    assert (url.name, url.stem, url.suffix) == (path.name, path.stem, path.suffix)
    assert url.parent == Url("s3:/" + str(path.parent))
    assert url.parent / url.name == url
    assert Url("s3://bucket") / "/".join(["x", "..", ".", *parts]) == url
    assert Url("s3://bucket").parent == Url("s3://bucket")


def test_a_name_on_the_web_ends_where_its_query_begins() -> None:
    url = Url("https://alice:hunter2@host/north/x.tif?sig=c0ffee/y.png#z.jpg")
    assert (url.name, url.suffix) == ("x.tif", ".tif")
    assert str(url.parent / "y.tif") == "https://host/north/y.tif"


# Locations


def test_what_is_remote_and_what_is_not() -> None:
    for text in ("s3://b/k", "S3://b", "https://h/x", "sftp://h/x", "memory://x", "abfs+x://y"):
        assert is_remote(text)
    for text in ("x.tif", "/a/b", r"C:\x.tif", "C://x", "file:///x", "FILE:///x", "a b://c", "~/x", ""):
        assert not is_remote(text)


def test_a_location_on_disk_opens_however_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "más o menos #1.bin"
    path.write_bytes(CONTENT)
    for location in (str(path), path.as_uri(), f"file://{tmp_path}/m%C3%A1s o menos %231.bin"):
        file = open_bytes(location)
        assert isinstance(file, LocalFile)
        assert read_bytes(file, 9, 99) == CONTENT[9:108]


NAMES = [
    "b/AIDS_A.txt",
    "a.txt",
    "B/x_a.TXT",
    "b/c/d e ñ%20_A.txt",
    "b.pt",
    ".h_A.txt",
    "b/.h/x_A.txt",
    "bb_A.txt",
]
WANTED = ["B/x_a.TXT", "b/AIDS_A.txt", "b/c/d e ñ%20_A.txt", "bb_A.txt"]


def test_files_are_listed_by_ending_with_sizes_in_order(folder: str, tmp_path: Path) -> None:
    for number, name in enumerate(NAMES):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(bytes(number + 1))
        put(f"{folder}/{name}", bytes(number + 1))
    (tmp_path / "loop").symlink_to(tmp_path)
    sizes = [NAMES.index(name) + 1 for name in WANTED]
    for root in (folder, f"{folder}/", str(tmp_path), tmp_path.as_uri()):
        start = str(tmp_path) if "tmp" in root else folder
        files = list_files(root, ["_A.txt"])
        assert files == [(f"{start}/{name}", size) for name, size in zip(WANTED, sizes, strict=True)]
        assert [open_bytes(name).size_bytes for name, _ in files] == sizes
        assert list_files(root, [".none"]) == []
    for root in (f"{folder}/b", str(tmp_path / "b")):
        assert [name.removeprefix(root) for name, _ in list_files(root, (".txt", ".pt"))] == [
            "/AIDS_A.txt",
            "/c/d e ñ%20_A.txt",
        ]
    for root in (f"{folder}/b.pt", str(tmp_path / "b.pt")):
        assert list_files(root, [".pt"]) == [(root, 5)]
        assert list_files(root, [".txt"]) == []


def test_a_folder_that_is_not_there_is_said(folder: str, tmp_path: Path) -> None:
    assert_refused("there is no such", f"{folder}/none", lambda: list_files(f"{folder}/none", [".pt"]))
    assert_refused("there is no such", "none", lambda: list_files(str(tmp_path / "none"), [".pt"]))


def test_a_folder_that_may_not_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "inner").mkdir()
    scandir = os.scandir

    def refuse(path: Path) -> Any:
        if Path(path).name == "inner":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert_refused("Permission denied", str(tmp_path / "inner"), lambda: list_files(str(tmp_path), [".pt"]))


def test_a_web_address_is_one_file_or_refused(web: WebServer) -> None:
    assert list_files(web.url, [".bin"]) == [(web.url, len(CONTENT))]
    root = web.url.rpartition("/")[0]
    assert_refused("does not tell which files", root, lambda: list_files(root, [".bin"]))


def test_a_listing_that_breaks_goes_on_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"data/{number:04}.pt" for number in range(1000)]
    starts: list[str | None] = []

    class Breaking:
        def list(self, folder: str, offset: str | None) -> Iterator[list[dict[str, Any]]]:
            starts.append(offset)
            rest = [name for name in names if name > (offset or "")]
            for at in range(0, len(rest), 50):
                if at == 300 and len(starts) < 3:
                    raise ConnectionError
                yield [{"path": name, "size": 1} for name in rest[at : at + 50]]

    monkeypatch.setattr(locations, "connect", lambda root: (Breaking(), "data"))
    files = list_files("s3://scenes/data", [".pt"], pause=lambda _: None)
    assert [name for name, _ in files] == [f"s3://scenes/{name}" for name in names]
    assert starts == [None, "data/0299.pt", "data/0599.pt"]

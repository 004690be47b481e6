"""Some hundred inputs that mean harm: nothing outside of the roots is read or written, nothing falls over."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from tests.data.sets import write_tiff
from tests.service.front import hostile_files
from tests.service.front.conftest import QUIET, Front
from tests.service.front.hostile import REMOTE_HOSTS, Hostile

COUNT = int(os.environ.get("CAUDAL_HOSTILE", "300"))


def snapshot(folder: Path, *but: Path) -> dict[str, tuple[int, int]]:
    """Names, sizes and times of all that is below a folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if not any(path.is_relative_to(one) for one in but):
            about = path.lstat()
            found[str(path)] = (
                about.st_size if path.is_file() else 0,
                about.st_mtime_ns if path.is_file() else 0,
            )
    return found


@contextmanager
def trap() -> Iterator[tuple[int, list[str]]]:
    """A web server of loopback that nobody may be made to ask: its port, and what it was asked."""
    asked: list[str] = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"SECRET")

        def log_message(self, *_said: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Answer)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port, asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def front(make_front: Callable[..., Front], root: Path) -> Front:
    """One that may ask hosts on the web which turn out to be private, and that has a real raster."""
    write_tiff(root / "roofs" / "map.tif", np.zeros((600, 500, 3), np.uint8))
    limits = QUIET.model_copy(update={"stream_seconds": 0.05})
    return make_front(limits=limits, remote_hosts=REMOTE_HOSTS)


def test_nothing_falls_over_and_nothing_outside_is_read_or_written(front: Front, tmp_path: Path) -> None:
    ids = [
        front.dataset("roofs", root="scenes", path="roofs")["id"],
        front.dataset("sent")["id"],
        front.job()["id"],
    ]
    raster = front.post("/rasters", {"dataset": ids[0], "file": "map.tif"}).json()["id"]
    before = snapshot(tmp_path, front.home)
    seen: Counter[object] = Counter()
    with trap() as (port, asked):
        _send_all(front, Hostile(7, ids, [raster], port), seen)
    assert asked == []
    assert snapshot(tmp_path, front.home) == before
    assert front.http.get("/readyz").status_code == 200
    assert not list((front.home / "incoming").rglob("*.*"))
    stray = [path for path in front.home.rglob("*") if path.is_symlink()]
    assert stray == []
    assert seen["application/problem+json"] > COUNT / 3
    assert min(seen["text/event-stream"], seen["image/png"], seen[403]) > COUNT / 100  # some are let in


def _send_all(front: Front, hostile: Hostile, seen: Counter[object]) -> None:
    for method, address, headers, body in hostile.requests(COUNT):
        answer = front.http.request(method, address, headers=headers, content=body)
        seen[answer.status_code] += 1
        seen[answer.headers.get("content-type", "").partition(";")[0]] += 1
        assert answer.status_code < 500, (method, address, headers, answer.text[:300])
        assert b"SECRET" not in answer.content, (method, address)
        assert b"root:" not in answer.content, (method, address)
        if answer.status_code >= 400 and method != "HEAD":
            assert answer.headers["content-type"] == "application/problem+json", (method, address)


def test_of_a_bomb_nothing_is_unpacked_that_is_above_the_limits_or_lies(front: Front) -> None:
    sent = front.dataset("sent")["id"]
    found = {
        name: front.post(f"/datasets/{sent}/archive", content=content).status_code
        for name, content in hostile_files.zip_bombs().items()
        if name not in ("below the ratio", "in an archive")
    }
    assert found["above the ratio"] == found["above the ratio together"] == 413
    assert found["says less"] == 422
    assert found["one for all"] == 415
    assert front.get(f"/datasets/{sent}/files").json()["items"] == []
    assert not list((front.home / "incoming").rglob("*.*"))

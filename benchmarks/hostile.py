"""Thousands of inputs that mean harm, sent to a server that really listens: what it answers, reads, holds.

`CAUDAL_HOSTILE` says how many (5 000): paths, ids, headers, JSON, ranges, event ids of streams, addresses to
fetch, tiles of real rasters, files and archives that lie, and bombs that are what they say. Nothing is asked
of a worker. What a process held at most is its own mark in the kernel, read ten times a second.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h11
import httpx
import numpy as np
import psutil
from tests.data.sets import write_tiff
from tests.service.front.hostile import REMOTE_HOSTS, Hostile
from tests.service.front.test_hostile import snapshot, trap

from benchmarks.rows import Row
from caudal.memory.process import status
from caudal.service.serving import Limits

COUNT = int(os.environ.get("CAUDAL_HOSTILE", "5000"))
SECRET = b"SECRET-OF-SOMEBODY"
CHILD_BYTES = int(Limits().child_bytes)
"""What a child that looks at files may hold: the service's own limit."""
SERVER_BYTES = 512 * 2**20
"""What the server itself may hold, whatever it is sent."""
_SLOW_SECONDS = 30.0
_SETTINGS = f"""
[serving]
remote_hosts = {json.dumps(REMOTE_HOSTS)}

[serving.limits]
requests_per_second = 1e6
burst = 1000000
refusals_per_minute = 1e6
stream_seconds = 0.05
plan_seconds = 20.0
"""


@dataclass
class Seen:
    """What came back. `faults` and `leaks` are requests, shortened."""

    statuses: Counter[int] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)
    not_problems: list[str] = field(default_factory=list)
    unsent: int = 0
    slowest: float = 0.0
    streams: int = 0
    tiles: int = 0
    asked: list[str] = field(default_factory=list)


class Held:
    """The most bytes that a server held, and the most that a child of it did, while a `with` lasts."""

    def __init__(self, server: int) -> None:
        self._server = psutil.Process(server)
        self.server = self.child = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Held:
        self._thread.start()
        return self

    def __exit__(self, *_ended: object) -> None:
        self._end.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._end.wait(0.1):
            with suppress(psutil.Error, OSError):
                self.server = max(self.server, _mark(self._server.pid))
                for child in self._server.children(recursive=True):
                    self.child = max(self.child, _mark(child.pid))


def _mark(pid: int) -> int:
    return int(status(str(pid)).get("VmHWM", 0))


def row() -> Row:
    """One server, all inputs, one after another."""
    warnings.filterwarnings("ignore", "Duplicate name")  # some archives are to have them
    with tempfile.TemporaryDirectory(prefix="caudal-hostile-") as name:
        folder = Path(name)
        roofs = folder / "data" / "scenes" / "roofs"
        roofs.mkdir(parents=True)
        (roofs / "a.csv").write_text("x,y\n1,2\n")
        (folder / "data" / "secret.csv").write_bytes(SECRET)
        (roofs.parent / "out").symlink_to(folder / "data")
        (roofs / "link.csv").symlink_to(folder / "data" / "secret.csv")
        write_tiff(roofs / "map.tif", np.zeros((1200, 900, 3), np.uint8))
        (folder / "service.toml").write_text(_SETTINGS)
        before = snapshot(folder, folder / "home")
        server, url = _serve(folder)
        try:
            with Held(server.pid) as held, trap() as (port, asked):
                seen = _sent(url, (folder / "home" / "token").read_text().strip(), server, port)
            seen.asked += asked
            alive = server.poll() is None
        finally:
            server.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                server.wait(60)
            server.kill()
        untouched = snapshot(folder, folder / "home") == before
        strays = [str(path) for path in (folder / "home").rglob("*") if path.is_symlink()]
    faults = seen.faults + seen.leaks + seen.not_problems + strays + seen.asked
    within = held.server < SERVER_BYTES and held.child < CHILD_BYTES
    good = alive and untouched and not faults and within and seen.slowest < _SLOW_SECONDS
    return Row(
        f"{COUNT} hostile inputs: paths, ids, headers, JSON, ranges, event ids, web addresses, tiles, bombs",
        "no 5xx but “not now”, no crash, nothing read, asked or written outside of the roots; the server "
        f"below {SERVER_BYTES // 2**20} MiB, a child that looks at files below {CHILD_BYTES // 2**20} MiB",
        good,
        [
            ("answers", ", ".join(f"{status}: {n}" for status, n in sorted(seen.statuses.items()))),
            ("not to be sent by a client", str(seen.unsent)),
            ("faults", "; ".join(seen.faults[:5]) or "none"),
            ("secrets that came out", "; ".join(seen.leaks[:5]) or "none"),
            ("refusals that are no problems", "; ".join(seen.not_problems[:5]) or "none"),
            ("files outside changed, links inside", f"{'no' if untouched else 'yes'}, {len(strays)}"),
            ("slowest answer", f"{seen.slowest:.2f} s"),
            ("streams that told events, tiles that were drawn", f"{seen.streams}, {seen.tiles}"),
            ("private addresses that were asked", "; ".join(seen.asked[:5]) or "none"),
            ("the server held at most", f"{held.server / 2**20:.0f} MiB"),
            ("a child of it at most", f"{held.child / 2**20:.0f} MiB"),
        ],
    )


def _serve(folder: Path) -> tuple[subprocess.Popen[str], str]:
    settings = folder / "service.toml"
    words = [
        "serve",
        "--port",
        "0",
        "--home",
        folder / "home",
        "--settings",
        settings,
        "--no-worker",
        "--json",
    ]
    root = f"scenes={folder / 'data' / 'scenes'}"
    server = subprocess.Popen(
        [sys.executable, "-m", "caudal", *map(str, words), "--root", root],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert server.stdout is not None
    return server, json.loads(server.stdout.readline())["url"]


def _sent(url: str, token: str, server: subprocess.Popen[str], port: int) -> Seen:
    seen = Seen()
    with httpx.Client(base_url=url, timeout=60, headers={"Authorization": f"Bearer {token}"}) as http:
        sets = [{"name": "roofs", "root": "scenes", "path": "roofs"}, {"name": "sent"}]
        ids = [http.post("/api/v1/datasets", json=one).json()["id"] for one in sets]
        order = {"verb": "pack", "data": {"dataset": ids[0]}}
        ids.append(http.post("/api/v1/jobs", json=order).json()["id"])
        raster = http.post("/api/v1/rasters", json={"dataset": ids[0], "file": "map.tif"}).json()["id"]
        for request in Hostile(11, ids, [raster], port).requests(COUNT):
            _one(http, seen, request)
            if server.poll() is not None:
                seen.faults.append(f"the server ended at {str(request)[:200]}")
                break
    return seen


def _one(http: httpx.Client, seen: Seen, request: tuple[str, str, dict[str, str], bytes | None]) -> None:
    method, address, headers, body = request
    said = f"{method} {address[:120]} {str(headers)[:80]}"
    began = time.monotonic()
    try:
        answer = http.request(method, address, headers=headers, content=body)
    except (httpx.InvalidURL, httpx.LocalProtocolError, h11.LocalProtocolError, UnicodeError, ValueError):
        seen.unsent += 1
        return
    except httpx.TimeoutException:
        seen.faults.append(f"no answer: {said}")
        return
    except httpx.RemoteProtocolError as error:  # the connection was closed on something that is no HTTP
        seen.statuses[0] += 1
        if "without sending" not in str(error):
            seen.faults.append(f"{said}: {error}")
        return
    seen.slowest = max(seen.slowest, time.monotonic() - began)
    seen.statuses[answer.status_code] += 1
    if answer.status_code >= 500 and answer.status_code not in (503, 507):
        seen.faults.append(f"{answer.status_code} {said} {answer.text[:200]}")
    if SECRET in answer.content or b"root:x:" in answer.content:
        seen.leaks.append(said)
    kind: Any = answer.headers.get("content-type", "")
    seen.streams += kind.startswith("text/event-stream") and b"data:" in answer.content
    seen.tiles += kind == "image/png"
    if answer.status_code >= 400 and method != "HEAD" and kind != "application/problem+json":
        seen.not_problems.append(f"{answer.status_code} {said} {kind}")


if __name__ == "__main__":
    made = row()
    print("met" if made.met else "not met", *(f"{name}: {value}" for name, value in made.figures), sep="\n")

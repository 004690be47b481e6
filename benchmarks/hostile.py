"""Thousands of inputs that mean harm, sent to a server that really listens: what it answers, reads, holds.

`CAUDAL_HOSTILE` says how many (5 000): paths, ids, headers, JSON, ranges, event ids, files and archives that
lie. Nothing is asked of a worker.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h11
import httpx
import psutil
from tests.service.front.hostile import Hostile
from tests.service.front.test_hostile import snapshot

from benchmarks.rows import Row

COUNT = int(os.environ.get("CAUDAL_HOSTILE", "5000"))
SECRET = b"SECRET-OF-SOMEBODY"
MOST_BYTES = 3 * 2**30  # what a child that looks at files may take, and the server itself
_SLOW_SECONDS = 30.0
_SETTINGS = """
[serving.limits]
requests_per_second = 1e6
burst = 1000000
refusals_per_minute = 1e6
stream_seconds = 1.0
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
    peak_bytes: int = 0


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
        (folder / "service.toml").write_text(_SETTINGS)
        before = snapshot(folder, folder / "home")
        server, url = _serve(folder)
        try:
            seen = _sent(url, (folder / "home" / "token").read_text().strip(), server)
            alive = server.poll() is None
        finally:
            server.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                server.wait(60)
            server.kill()
        untouched = snapshot(folder, folder / "home") == before
        strays = [str(path) for path in (folder / "home").rglob("*") if path.is_symlink()]
    faults = seen.faults + seen.leaks + seen.not_problems + strays
    good = (
        alive and untouched and not faults and seen.peak_bytes < MOST_BYTES and seen.slowest < _SLOW_SECONDS
    )
    return Row(
        f"{COUNT} hostile inputs: paths, ids, headers, JSON, ranges, event ids, files and archives that lie",
        "no 5xx but “not now”, no crash, nothing read or written outside of the roots, memory in its budget",
        good,
        [
            ("answers", ", ".join(f"{status}: {n}" for status, n in sorted(seen.statuses.items()))),
            ("not to be sent by a client", str(seen.unsent)),
            ("faults", "; ".join(seen.faults[:5]) or "none"),
            ("secrets that came out", "; ".join(seen.leaks[:5]) or "none"),
            ("refusals that are no problems", "; ".join(seen.not_problems[:5]) or "none"),
            ("files outside changed, links inside", f"{'no' if untouched else 'yes'}, {len(strays)}"),
            ("slowest answer", f"{seen.slowest:.2f} s"),
            ("server and children held at most", f"{seen.peak_bytes / 2**20:.0f} MiB"),
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


def _sent(url: str, token: str, server: subprocess.Popen[str]) -> Seen:
    seen, about = Seen(), psutil.Process(server.pid)
    with httpx.Client(base_url=url, timeout=60, headers={"Authorization": f"Bearer {token}"}) as http:
        sets = [{"name": "roofs", "root": "scenes", "path": "roofs"}, {"name": "sent"}]
        ids = [http.post("/api/v1/datasets", json=one).json()["id"] for one in sets]
        order = {"verb": "pack", "data": {"dataset": ids[0]}}
        ids.append(http.post("/api/v1/jobs", json=order).json()["id"])
        for number, request in enumerate(Hostile(11, ids).requests(COUNT)):
            _one(http, seen, request)
            if number % 20 == 0:
                seen.peak_bytes = max(seen.peak_bytes, _held(about))
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
    if answer.status_code >= 400 and method != "HEAD" and kind != "application/problem+json":
        seen.not_problems.append(f"{answer.status_code} {said} {kind}")


def _held(server: psutil.Process) -> int:
    """Bytes that the server and its children have resident."""
    total = 0
    for process in (server, *server.children(recursive=True)):
        with suppress(psutil.Error):
            total += process.memory_info().rss
    return total


if __name__ == "__main__":
    made = row()
    print("met" if made.met else "not met", *(f"{name}: {value}" for name, value in made.figures), sep="\n")

"""Some hundred inputs that mean harm: nothing outside of the roots is read or written, nothing falls over."""

from __future__ import annotations

import os
from pathlib import Path

from tests.service.front.conftest import Front
from tests.service.front.hostile import Hostile

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


def test_nothing_falls_over_and_nothing_outside_is_read_or_written(front: Front, tmp_path: Path) -> None:
    ids = [
        front.dataset("roofs", root="scenes", path="roofs")["id"],
        front.dataset("sent")["id"],
        front.job()["id"],
    ]
    before = snapshot(tmp_path, front.home)
    seen: dict[int, int] = {}
    for method, address, headers, body in Hostile(7, ids).requests(COUNT):
        answer = front.http.request(method, address, headers=headers, content=body)
        seen[answer.status_code] = seen.get(answer.status_code, 0) + 1
        assert answer.status_code < 500, (method, address, headers, answer.text[:300])
        assert b"SECRET" not in answer.content, (method, address)
        assert b"root:" not in answer.content, (method, address)
        if answer.status_code >= 400 and method != "HEAD":
            assert answer.headers["content-type"] == "application/problem+json", (method, address)
    assert snapshot(tmp_path, front.home) == before
    assert front.http.get("/readyz").status_code == 200
    assert not list((front.home / "incoming").rglob("*.*"))
    stray = [path for path in front.home.rglob("*") if path.is_symlink()]
    assert stray == []
    assert sum(count for status, count in seen.items() if status >= 400) > COUNT / 3

"""Texts of runs name roots, not folders of the server; ranges are those of the text that is shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from caudal.service.ends import Ending
from caudal.service.records import Attempt
from caudal.service.store import Machine
from tests.service.front.conftest import Front


@pytest.fixture
def begun(front: Front) -> Attempt:
    """An attempt at a job whose run there is."""
    front.job()
    claimed = front.store.claims.claim(Machine("here", "place", 2**30, 0, 8))
    assert claimed is not None
    folder = front.settings.run_folder(claimed[0].id)
    folder.mkdir(parents=True)
    front.store.claims.running(claimed[1], folder)
    return claimed[1]


def test_a_log_shows_names_of_roots_in_pieces_as_in_one(front: Front, begun: Attempt, root: Path) -> None:
    log, path = front.settings.job_folder(begun.job_id) / "log.txt", f"/jobs/{begun.job_id}/log"
    seen = b""
    for piece in (f"reads {root}/a.tif\nand {root}/b", f".tif\nwrites {front.home}/jo", "bs/x\nthe end"):
        with log.open("a") as file:
            file.write(piece)
        answer = front.get(path, headers={"Range": f"bytes={len(seen)}-"})
        assert answer.status_code == 206
        seen += answer.content
    whole = "reads scenes:a.tif\nand scenes:b.tif\nwrites home:jobs/x\n"
    assert seen.decode() == front.get(path).text == whole
    front.store.claims.end(begun, Ending(how="error"), front.settings)
    assert front.get(path).text == whole + "the end"


@pytest.mark.parametrize("name", ["spec.toml", "events.jsonl", "report.html", "model/model.json"])
def test_no_text_of_a_run_says_where_the_server_keeps_things(
    front: Front, begun: Attempt, root: Path, name: str
) -> None:
    file = front.settings.run_folder(begun.job_id) / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps({"a": f"{root}/ñ.tif", "b": str(front.home / "jobs")}) + "\n")
    path = f"/runs/{begun.job_id}/files/{name}"
    answer = front.get(path)
    assert json.loads(answer.text) == {"a": "scenes:ñ.tif", "b": "home:jobs"}
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert front.get(path, headers={"If-None-Match": answer.headers["etag"]}).status_code == 304
    part = front.get(path, headers={"Range": "bytes=2-9", "If-Range": answer.headers["etag"]})
    assert (part.status_code, part.content) == (206, answer.content[2:10])


def test_what_is_no_text_is_given_as_it_is(front: Front, begun: Attempt, root: Path) -> None:
    file = front.settings.run_folder(begun.job_id) / "map.tif"
    file.write_bytes(f"II*\0{root}/a".encode())
    assert front.get(f"/runs/{begun.job_id}/files/map.tif").content == file.read_bytes()

"""Files: nothing outside of a folder is opened, ranges are what was asked for, all is looked at."""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from caudal.service import beneath
from caudal.service.problems import Refused
from caudal.service.ranges import Span, span_of
from caudal.service.serving import Limits
from caudal.service.uploads import Incoming
from tests.service.front.conftest import QUIET, Front


@given(
    st.lists(
        st.sampled_from(
            ["roofs", "..", ".", "", "out", "a.csv", "link.csv", "secret.csv", "/", "\\", "\0", "%2e%2e", "ñ"]
        ),
        max_size=6,
    )
)
def test_no_name_leads_out_of_a_folder(tmp_path_factory: pytest.TempPathFactory, parts: list[str]) -> None:
    root = _tree(tmp_path_factory)
    try:
        handle = beneath.file_below(root, "/".join(parts))
    except Refused:
        return
    else:
        where = Path(f"/proc/self/fd/{handle}").resolve()
        os.close(handle)
        assert where.is_relative_to(root)
        assert where.name == "a.csv"


_TREES: list[Path] = []


def _tree(factory: pytest.TempPathFactory) -> Path:
    if not _TREES:
        root = factory.mktemp("tree") / "root"
        (root / "roofs").mkdir(parents=True)
        (root / "roofs" / "a.csv").write_text("a")
        (root / "a.csv").write_text("a")
        (root.parent / "secret.csv").write_text("s")
        (root / "out").symlink_to(root.parent)
        (root / "link.csv").symlink_to(root.parent / "secret.csv")
        os.mkfifo(root / "roofs" / "secret.csv")
        _TREES.append(root)
    return _TREES[0]


@given(st.integers(0, 40), st.integers(0, 50), st.integers(0, 50))
def test_a_range_is_what_a_slice_would_give(size: int, first: int, last: int) -> None:
    data = bytes(range(size))
    for text, wanted in (
        (f"bytes={first}-{last}", data[first : last + 1]),
        (f"bytes={first}-", data[first:]),
        (f"bytes=-{last}", data[len(data) - min(last, size) :]),
    ):
        try:
            span = span_of(text, size)
        except Refused:
            assert wanted == b""
            continue
        if span is None:  # a range that ends before it begins counts as none
            assert first > last
            continue
        assert data[span.start : span.start + span.count] == wanted
        assert span.count > 0


@pytest.mark.parametrize(
    "text", ["", "bytes", "bytes=", "bytes=-", "lines=0-1", "bytes=0-1,3-4", "bytes=a-b", "bytes=1e3-"]
)
def test_what_is_no_single_range_means_the_whole(text: str) -> None:
    assert span_of(text, 10) is None
    assert span_of("bytes=2-3", 10) == Span(2, 2)


def test_files_of_a_root_are_listed_and_read_and_links_are_not(front: Front) -> None:
    dataset = front.dataset("roofs", root="scenes", path="roofs")
    names = [file["name"] for file in front.get(f"/datasets/{dataset['id']}/files").json()["items"]]
    assert names == ["a.csv", "ñ b.csv"]
    path = f"/datasets/{dataset['id']}/files"
    assert front.get(f"{path}/a.csv").content == b"x,y\n1,2\n"
    part = front.get(f"{path}/a.csv", headers={"Range": "bytes=4-6"})
    assert (part.status_code, part.content, part.headers["content-range"]) == (206, b"1,2", "bytes 4-6/8")
    past = front.get(f"{path}/a.csv", headers={"Range": "bytes=99-"})
    assert (past.status_code, past.headers["content-range"]) == (416, "bytes */8")
    assert front.get(f"{path}/link.csv").status_code == 404
    assert front.put(f"{path}/b.csv", b"1").status_code == 409
    everything = front.dataset("all", root="scenes")
    assert front.get(f"/datasets/{everything['id']}/files/out/secret.csv").status_code == 404
    assert front.post("/datasets", {"name": "x", "root": "scenes", "path": "out"}).status_code == 404


def png(height: int, width: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(file, "png")
    return file.getvalue()


def test_what_is_sent_is_found_again_byte_for_byte(front: Front) -> None:
    path = f"/datasets/{front.dataset()['id']}/files"
    picture = png(30, 40)
    first = front.put(f"{path}/images/a ñ.png", picture)
    assert first.status_code == 201, first.text
    assert first.json()["facts"] == {
        "kind": "raster", "height": 30, "width": 40, "bands": 3, "dtype": "uint8", "codec": "png",
    }  # fmt: skip
    assert front.put(f"{path}/images/a ñ.png", picture).status_code == 200
    assert front.get(f"{path}/images/a ñ.png").content == picture
    assert [file["name"] for file in front.get(path).json()["items"]] == ["images/a ñ.png"]
    assert not list((front.home / "incoming").rglob("*.*"))


def bomb_png(height: int, width: int) -> bytes:
    """A few bytes that say they are very many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


def tiff(width: int, height: int, compression: int = 1, extra: bytes = b"") -> bytes:
    """A TIFF with one strip that says how large it is."""
    tags = [
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, compression), (262, 3, 1, 1),
        (273, 4, 1, 200), (277, 3, 1, 1), (278, 4, 1, height), (279, 4, 1, max(1, len(extra))),
    ]  # fmt: skip
    body = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + b"\0" * 4
    return (b"II*\0" + struct.pack("<I", 8) + body).ljust(200, b"\0") + extra


@pytest.mark.parametrize(
    ("name", "content", "status"),
    [
        ("a.png", b"GIF89a", 415),
        ("a.pt", b"PK\x03\x04", 415),
        ("a.pkl", b"\x80\x04", 415),
        ("a.vrt", b"<VRTDataset/>", 415),
        ("a.tif", b"<VRTDataset/>", 415),
        ("a.csv", b"a\0b", 415),
        ("a.png", bomb_png(60_000, 60_000), 422),
        ("a.tif", tiff(2**31, 2**31), 422),
        ("a.tif", tiff(60_000, 60_000, 8, zlib.compress(b"\0" * 1000)), 422),
        (
            "a.npy",
            b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(128)
            + b"\n",
            422,
        ),
        ("a.safetensors", struct.pack("<Q", 2**60), 422),
        ("a.parquet", b"PAR1" + b"\xff" * 20 + b"PAR1", 422),
    ],
)
def test_what_lies_or_is_not_taken_never_gets_a_name(
    front: Front, name: str, content: bytes, status: int
) -> None:
    path = f"/datasets/{front.dataset()['id']}/files"
    answer = front.put(f"{path}/{name}", content)
    assert answer.status_code in (status, 413), answer.text
    assert front.get(path).json()["items"] == []


@pytest.mark.parametrize(
    "name",
    ["../a.csv", "a/../../a.csv", "/a.csv", "a//b.csv", ".hidden.csv", "a/.b/c.csv", "con.csv", "a:b.csv",
     "a\\b.csv", "x" * 200 + ".csv", "a/" * 20 + "b.csv", "a.csv ", "a*.csv"],
)  # fmt: skip
def test_a_name_that_could_lead_elsewhere_is_refused(front: Front, name: str) -> None:
    from urllib.parse import quote

    dataset = front.dataset()
    answer = front.put(f"/datasets/{dataset['id']}/files/{quote(name, safe='')}", b"a,b\n")
    assert answer.status_code in (404, 405, 422)
    assert front.get(f"/datasets/{dataset['id']}/files").json()["items"] == []


def test_more_bytes_than_allowed_are_refused_announced_or_not(make_front: Callable[..., Front]) -> None:
    front = make_front(limits=Limits.model_validate({**QUIET.model_dump(), "upload": 1000, "dataset": 1500}))
    path = f"/datasets/{front.dataset()['id']}/files"
    text = b"a,b\n" * 300
    assert front.put(f"{path}/a.csv", text).status_code == 413
    assert front.http.put(f"/api/v1{path}/a.csv", content=iter([text[:600], text[600:]])).status_code == 413
    assert front.put(f"{path}/a.csv", text[:800]).status_code == 201
    assert front.put(f"{path}/b.csv", text[:800]).status_code == 413
    assert [file["name"] for file in front.get(path).json()["items"]] == ["a.csv"]


def archive(files: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in files.items():
            made.writestr(name, content)
    return file.getvalue()


def test_an_archive_is_unpacked_without_what_systems_leave_in_it(front: Front) -> None:
    path = f"/datasets/{front.dataset()['id']}"
    files = {
        "images/a.png": png(8, 8),
        "masks/a.png": png(8, 8),
        "__MACOSX/x": b"1",
        "images/.DS_Store": b"1",
    }
    answer = front.http.post(f"/api/v1{path}/archive", content=archive(files))
    assert (answer.status_code, answer.json()["files"]) == (201, 2), answer.text
    assert [f["name"] for f in front.get(f"{path}/files").json()["items"]] == ["images/a.png", "masks/a.png"]


def _link() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        info = zipfile.ZipInfo("a.csv")
        info.external_attr = 0o120777 << 16
        made.writestr(info, "/etc/passwd")
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"not a zip",
        archive({"../a.csv": b"1"}),
        archive({"/etc/a.csv": b"1"}),
        archive({"a.csv": b"1", "b.pkl": b"1"}),
        archive({"a.csv": b"1", "b.zip": archive({"a.csv": b"1"})}),
        archive({"a.csv": b"\0"}),
        archive({"a.csv": b"0" * 400 * 2**20}),
        archive({}),
        _link(),
        archive({"a.csv": b"1,2\n" * 100})[:-30],
    ],
    ids=["none", "up", "absolute", "pickle", "nested", "binary", "bomb", "empty", "link", "cut"],
)
def test_an_archive_that_is_odd_in_one_part_is_refused_as_a_whole(front: Front, content: bytes) -> None:
    path = f"/datasets/{front.dataset()['id']}"
    answer = front.http.post(f"/api/v1{path}/archive", content=content)
    assert answer.status_code in (413, 415, 422), answer.text
    assert front.get(f"{path}/files").json()["items"] == []
    assert not list((front.home / "incoming").rglob("*.*"))


@pytest.mark.parametrize(
    ("there", "files"),
    [
        ("b", {"a.csv": b"1", "b/c.csv": b"1"}),
        ("z.csv/y", {"a.csv": b"1", "z.csv": b"1"}),
        ("", {"a.csv": b"1", "b.csv": b"1", "b.csv/c.csv": b"1"}),
    ],
    ids=["a file is in the way", "a folder is in the way", "file and folder"],
)
def test_an_archive_that_cannot_be_placed_leaves_nothing(
    front: Front, there: str, files: dict[str, bytes]
) -> None:
    dataset = front.dataset()
    path, folder = f"/datasets/{dataset['id']}", next((front.home / "uploads").iterdir())
    if there:
        (folder / there).parent.mkdir(exist_ok=True)
        (folder / there).write_text("x")
    answer = front.http.post(f"/api/v1{path}/archive", content=archive(files))
    assert answer.status_code == (409 if there else 422), answer.text
    assert [file["name"] for file in front.get(f"{path}/files").json()["items"]] == ([there] if there else [])


def test_an_archive_is_held_to_the_room_that_is_left_and_to_the_disks(
    make_front: Callable[..., Front], monkeypatch: pytest.MonkeyPatch
) -> None:
    front = make_front(limits=Limits.model_validate({**QUIET.model_dump(), "dataset": 1000}))
    path = f"/datasets/{front.dataset()['id']}"
    assert front.put(f"{path}/files/a.csv", b"1,2\n" * 200).status_code == 201
    sent = archive({"b.csv": b"1,2\n" * 60})
    refused = front.http.post(f"/api/v1{path}/archive", content=sent)
    assert (refused.status_code, refused.json()["code"]) == (413, "too_large")
    assert "200 B are left" in refused.json()["detail"]
    small = archive({"b.csv": b"1,2\n" * 50})
    monkeypatch.setattr("shutil.disk_usage", lambda _path: _Free())
    monkeypatch.setattr("caudal.service.uploads.Incoming.refuse_size", lambda *_given, **_more: None)
    assert front.http.post(f"/api/v1{path}/archive", content=small).status_code == 507
    monkeypatch.undo()
    assert front.http.post(f"/api/v1{path}/archive", content=small).status_code == 201


def test_a_data_set_says_what_it_holds(front: Front, root: Path) -> None:
    sent = front.dataset()
    path = f"/datasets/{sent['id']}"
    for content in (b"1,2\n", b"1,2\n3,4\n"):
        front.put(f"{path}/files/a.csv", content)
    front.http.post(f"/api/v1{path}/archive", content=archive({"b.csv": b"5", "c/a.png": png(8, 8)}))
    found = front.get(path).json()
    assert found["facts"] == {"files": 3, "kinds": {".csv": 2, ".png": 1}, "whole": True}
    assert found["bytes"] == sum(file["bytes"] for file in front.get(f"{path}/files").json()["items"])
    own = front.dataset("r", root="scenes", path="roofs")
    assert (own["bytes"], own["facts"]["files"]) == (16, 2)  # its link is none of them


def test_a_server_that_is_idle_for_long_keeps_its_folder_of_what_comes(
    make_front: Callable[..., Front], tmp_path: Path
) -> None:
    folder = tmp_path / "home0" / "incoming"
    front = make_front()
    own = next(folder.iterdir())
    (folder / "left").mkdir()
    for one in folder.iterdir():
        os.utime(one, (0, 0))
    context = front.app.context
    Incoming(folder, QUIET, context.sandbox, context.metrics).close()
    assert list(folder.iterdir()) == [own]


def test_a_project_that_is_deleted_takes_what_was_sent_with_it(front: Front, root: Path) -> None:
    project = front.post("/projects", {"name": "p"}).json()["id"]
    sent = front.dataset(project=project)
    front.dataset("r", root="scenes", path="roofs", project=project)
    front.put(f"/datasets/{sent['id']}/files/a.csv", b"a,b\n")
    assert front.http.delete(f"/api/v1/projects/{project}").status_code == 204
    assert not list((front.home / "uploads").iterdir())
    assert (root / "roofs" / "a.csv").is_file()


def test_a_full_disk_is_said_and_nothing_is_left(
    make_front: Callable[..., Front], monkeypatch: pytest.MonkeyPatch
) -> None:
    front = make_front()
    path = f"/datasets/{front.dataset()['id']}/files"
    usage = os.statvfs(front.home)
    monkeypatch.setattr("shutil.disk_usage", lambda _path: type(usage) and _Free())
    assert front.put(f"{path}/a.csv", b"a,b\n").status_code == 507
    assert front.get(path).json()["items"] == []


class _Free:
    free = 1000


def test_deleting_a_data_set_removes_what_was_sent_and_nothing_of_a_root(front: Front, root: Path) -> None:
    sent, own = front.dataset(), front.dataset("roofs", root="scenes", path="roofs")
    front.put(f"/datasets/{sent['id']}/files/a.csv", b"a,b\n")
    for dataset in (sent, own):
        assert front.http.delete(f"/api/v1/datasets/{dataset['id']}").status_code == 204
        assert front.get(f"/datasets/{dataset['id']}").status_code == 404
    assert not list((front.home / "uploads").iterdir())
    assert (root / "roofs" / "a.csv").is_file()

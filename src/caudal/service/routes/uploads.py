"""Files that are sent into a data set: one by one, in a zip archive, or fetched by the server."""

from __future__ import annotations

import shutil
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Request, Response
from fastapi import Path as PathPart
from pydantic import BaseModel

from caudal.core.messages import _
from caudal.service.archives import unpack
from caudal.service.asks import FetchFile, PathId
from caudal.service.auth import Runs
from caudal.service.context import Context, Here
from caudal.service.problems import Refused, documented
from caudal.service.records import Dataset
from caudal.service.remote import fetch
from caudal.service.uploads import clean_name

router = APIRouter(prefix="/datasets/{dataset_id}", tags=["uploads"])
FilePart = Annotated[str, PathPart(max_length=900, description="Its name in the data set, like images/a.tif")]
_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}
_MOST_BODY_BYTES = 2**50  # counted by the code below, which knows the limit of the day


class SentView(BaseModel):
    """A file that was taken, and what it says of itself."""

    name: str
    bytes: int
    facts: dict[str, Any]


class UnpackedView(BaseModel):
    """What was taken of an archive: the first names, and how many."""

    files: int
    names: list[str]


def _takes(here: Context, dataset_id: str) -> Dataset:
    dataset = here.store.datasets.get(dataset_id)
    if dataset.kind != "upload":
        raise Refused(
            409,
            "read_only",
            _("The data set is a folder of the server, which is only read."),
            _("Make one without root, path and place, and send files to that."),
        )
    return dataset


def _room(here: Context, dataset: Dataset) -> int:
    return min(here.filling.room(dataset), int(here.serving.limits.upload))


def _announced(request: Request) -> int | None:
    text = request.headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 18 else None


@router.put(
    "/files/{name:path}",
    responses={
        **documented(404, 409, 413, 415, 507),
        200: {"description": "It takes the place of one of that name"},
        201: {"description": "It is new", "model": SentView},
    },
    response_model=SentView,
    openapi_extra=_BODY,
    max_body_size=_MOST_BODY_BYTES,
    operation_id="put_file",
)
async def put_file(
    request: Request, response: Response, here: Here, caller: Runs, dataset_id: PathId, name: FilePart
) -> SentView:
    """Send a file, as the body of the request. It is looked at before it can be seen by a job."""
    clean_name(name)
    dataset = await run_sync(_takes, here, dataset_id)
    most = await run_sync(_room, here, dataset)
    suffix = PurePosixPath(name).suffix.lower()
    path = await here.incoming.receive(request.stream(), suffix, most, _announced(request))
    try:
        facts, size_bytes, new = await run_sync(_settle, here, path, dataset, name, limiter=here.heavy)
    finally:
        path.unlink(missing_ok=True)
    response.status_code = 201 if new else 200
    return SentView(name=name, bytes=size_bytes, facts=facts)


def _settle(here: Context, path: Path, dataset: Dataset, name: str) -> tuple[dict[str, Any], int, bool]:
    facts = here.incoming.examine(path)
    size_bytes = path.stat().st_size
    return facts, size_bytes, here.filling.fill(dataset, {name: path}) == 1


@router.post(
    "/archive",
    status_code=201,
    responses=documented(404, 409, 413, 415, 507),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
    max_body_size=_MOST_BODY_BYTES,
    operation_id="post_archive",
)
async def post_archive(request: Request, here: Here, caller: Runs, dataset_id: PathId) -> UnpackedView:
    """Send a zip archive, as the body of the request. All of it is taken, or nothing."""
    dataset = await run_sync(_takes, here, dataset_id)
    most = int(here.serving.limits.upload)
    path = await here.incoming.receive(request.stream(), ".zip", most, _announced(request))
    try:
        names = await run_sync(_unpack, here, path, dataset, limiter=here.heavy)
    finally:
        path.unlink(missing_ok=True)
    return UnpackedView(files=len(names), names=names[:100])


def _unpack(here: Context, archive: Path, dataset: Dataset) -> list[str]:
    folder = here.incoming.new("")
    try:
        room = here.filling.room(dataset)
        names = unpack(archive, folder, here.serving.limits, room, here.incoming.examine)
        here.filling.fill(dataset, {name: folder / name for name in names})
        return names
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@router.post(
    "/fetch", status_code=201, responses=documented(404, 409, 413, 415, 507), operation_id="fetch_file"
)
async def fetch_file(here: Here, caller: Runs, dataset_id: PathId, body: FetchFile) -> SentView:
    """Have the server fetch a file from the web: from hosts that its settings name, else none."""
    return await run_sync(_fetch, here, dataset_id, body, limiter=here.heavy)


def _fetch(here: Context, dataset_id: str, body: FetchFile) -> SentView:
    clean_name(body.name)
    dataset = _takes(here, dataset_id)
    path = here.incoming.new(PurePosixPath(body.name).suffix.lower())
    try:
        most = _room(here, dataset)
        fetch(
            body.url,
            path,
            here.serving.remote_hosts,
            most,
            seconds=here.serving.limits.fetch_seconds,
            room=lambda count: here.incoming.refuse_size(count, most),
        )
        facts, size_bytes, _new = _settle(here, path, dataset, body.name)
    finally:
        path.unlink(missing_ok=True)
    return SentView(name=body.name, bytes=size_bytes, facts=facts)

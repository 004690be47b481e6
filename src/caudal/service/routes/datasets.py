"""Data sets: folders of a root, or files that were sent. Names, never paths of the server."""

from __future__ import annotations

import shutil
from pathlib import Path

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from caudal.core.messages import _
from caudal.service import beneath
from caudal.service.asks import NewDataset, PathId, QueryId, QueryPlace
from caudal.service.auth import Reads, Runs
from caudal.service.context import Context, Here
from caudal.service.filling import survey
from caudal.service.ids import new_id
from caudal.service.once import Key, do_once, once_of
from caudal.service.pages import Cursor, Limit, Page, id_of, number_of, paged
from caudal.service.problems import Refused, documented
from caudal.service.records import Dataset
from caudal.service.views import DatasetView, FileView

router = APIRouter(tags=["datasets"])


class RootView(BaseModel):
    """A folder that data sets may be in, and what it is called elsewhere (`windows`, `wsl`)."""

    name: str
    elsewhere: dict[str, str]


@router.get("/roots", responses=documented(304), operation_id="list_roots")
def list_roots(here: Here, caller: Reads) -> list[RootView]:
    """The folders that the service may read."""
    return [RootView(name=name, elsewhere=here.roots.other_names(name)) for name in here.roots.names()]


@router.get("/datasets", responses=documented(304, 404), operation_id="list_datasets")
def list_datasets(
    request: Request,
    response: Response,
    here: Here,
    caller: Reads,
    project: QueryId = None,
    place: QueryPlace = None,
    limit: Limit = 50,
    cursor: Cursor = "",
) -> Page[DatasetView]:
    """The oldest first; with `place`, those of that folder or file alone."""
    path = None if place is None else str(here.roots.allowed(*here.roots.find(place)))
    found = here.store.datasets.list(project, limit, id_of(cursor), path)
    items = [DatasetView.of(dataset, here.roots.veil) for dataset in found]
    return paged(request, response, items, limit, found[-1].id if found else None)


@router.post("/datasets", status_code=201, responses=documented(404, 409, 413), operation_id="create_dataset")
def create_dataset(
    request: Request, response: Response, here: Here, caller: Runs, body: NewDataset, key: Key = None
) -> DatasetView:
    """Register a folder or file of a root, or make an empty data set that takes files."""
    made = do_once(
        here.store,
        once_of(caller, key, request, body),
        response,
        201,
        DatasetView,
        lambda: DatasetView.of(_create(here, body), here.roots.veil),
    )
    response.headers["Location"] = f"/api/v1/datasets/{made.id}"
    return made


def _create(here: Context, body: NewDataset) -> Dataset:
    project = here.project(body.project)
    if body.place is not None and (body.root, body.path) == (None, None):
        root, below = here.roots.find(body.place)
    elif body.root is not None and body.place is None:
        root, below = body.root, body.path or ""
    elif (body.root, body.path, body.place) == (None, None, None):
        folder = here.roots.uploads / new_id()
        folder.mkdir(mode=0o700)
        try:
            return here.store.datasets.create(project, body.name, "upload", str(folder))
        except BaseException:
            folder.rmdir()
            raise
    else:
        raise Refused(
            422,
            "wrong_request",
            _("Data are in a root, at a place, or to be sent."),
            _("Give root and path, or place alone, or none of them."),
        )
    path = here.roots.allowed(root, below)
    return here.store.datasets.create(project, body.name, "root", str(path), *survey(path))


@router.get("/datasets/{dataset_id}", responses=documented(304, 404), operation_id="get_dataset")
def get_dataset(here: Here, caller: Reads, dataset_id: PathId) -> DatasetView:
    """One data set."""
    return DatasetView.of(here.store.datasets.get(dataset_id), here.roots.veil)


@router.delete(
    "/datasets/{dataset_id}", status_code=204, responses=documented(404, 409), operation_id="delete_dataset"
)
def delete_dataset(here: Here, caller: Runs, dataset_id: PathId) -> None:
    """Forget it. Files that were sent are removed, those of a root are not touched."""
    dataset = here.store.datasets.get(dataset_id)
    here.store.datasets.delete(dataset_id)
    forget_files(here, dataset)


def forget_files(here: Context, dataset: Dataset) -> None:
    """Remove what was sent; nothing of a root."""
    path = Path(dataset.path)
    if dataset.kind == "upload" and path.parent == here.roots.uploads:
        shutil.rmtree(path, ignore_errors=True)


@router.get("/datasets/{dataset_id}/files", responses=documented(304, 404), operation_id="list_dataset_files")
def list_dataset_files(
    request: Request,
    response: Response,
    here: Here,
    caller: Reads,
    dataset_id: PathId,
    limit: Limit = 50,
    cursor: Cursor = "",
) -> Page[FileView]:
    """Its files, in the order of their folders."""
    dataset = here.store.datasets.get(dataset_id)
    path = here.roots.path_of(dataset)
    if path.is_file():
        about = path.stat()
        return Page(items=[FileView(name=path.name, bytes=about.st_size, changed=about.st_mtime)], next=None)
    return files_page(request, response, path, limit, cursor)


def files_page(request: Request, response: Response, path: Path, limit: int, cursor: str) -> Page[FileView]:
    """A page of the files below a folder."""
    skip = number_of(cursor) or 0
    items = []
    for number, (name, size_bytes, changed) in enumerate(beneath.files_below(path)):
        if number >= skip:
            items.append(FileView(name=name, bytes=size_bytes, changed=changed))
        if len(items) == limit:
            break
    return paged(request, response, items, limit, skip + len(items))

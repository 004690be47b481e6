"""Runs: what jobs wrote, their results and files; and the models among them."""

from __future__ import annotations

import mimetypes
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from fastapi import Path as PathPart

from caudal.core.messages import _
from caudal.service import beneath
from caudal.service.asks import PathId, QueryId
from caudal.service.auth import Reads
from caudal.service.context import Context, Here
from caudal.service.pages import Cursor, Limit, Page, id_of, paged
from caudal.service.problems import documented, not_found
from caudal.service.ranges import file_answer
from caudal.service.records import Run
from caudal.service.routes.datasets import files_page
from caudal.service.veiled import grows, is_text, text_answer
from caudal.service.views import FileView, ModelView, RunView

router = APIRouter(tags=["runs"])
_BYTES = {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
_FILE = {
    **documented(304, 404, 416),
    200: {"description": "All of it", **_BYTES},
    206: {"description": "The range that was asked for", **_BYTES},
}
FilePart = Annotated[str, PathPart(max_length=1024, description="Its name, like model/model.json")]


@router.get("/runs", responses=documented(304), operation_id="list_runs")
def list_runs(
    request: Request,
    response: Response,
    here: Here,
    caller: Reads,
    project: QueryId = None,
    limit: Limit = 50,
    cursor: Cursor = "",
) -> Page[RunView]:
    """The oldest first."""
    found = here.store.runs.list(project, limit, id_of(cursor))
    items = [RunView.of(run, here.roots.veil) for run in found]
    return paged(request, response, items, limit, found[-1].id if found else None)


@router.get("/runs/{run_id}", responses=documented(304, 404), operation_id="get_run")
def get_run(here: Here, caller: Reads, run_id: PathId) -> RunView:
    """One run; its id is that of its job."""
    return RunView.of(here.store.runs.get(run_id), here.roots.veil)


@router.get("/runs/{run_id}/result", responses=documented(304, 404), operation_id="get_result")
def get_result(here: Here, caller: Reads, run_id: PathId) -> dict[str, Any]:
    """How it ended, with the keys that every verb has: metrics, predicted and measured bytes, seconds."""
    run = here.store.runs.get(run_id)
    if run.result is None:
        raise not_found(_("The run has no result yet."))
    found: dict[str, Any] = here.roots.veil.all(run.result)
    return found


@router.get("/runs/{run_id}/files", responses=documented(304, 404), operation_id="list_run_files")
def list_run_files(
    request: Request,
    response: Response,
    here: Here,
    caller: Reads,
    run_id: PathId,
    limit: Limit = 50,
    cursor: Cursor = "",
) -> Page[FileView]:
    """What it wrote so far."""
    return files_page(request, response, run_folder(here, here.store.runs.get(run_id)), limit, cursor)


@router.get(
    "/runs/{run_id}/files/{name:path}", response_class=Response, responses=_FILE, operation_id="get_run_file"
)
def get_run_file(request: Request, here: Here, caller: Reads, run_id: PathId, name: FilePart) -> Response:
    """A file of a run. Takes Range. Texts name roots where they name the server's folders."""
    run = here.store.runs.get(run_id)
    handle = beneath.file_below(run_folder(here, run), name)
    if not is_text(name):
        return file_answer(request, handle, _media_type(name), name)
    veil, scratch, lines_alone = here.roots.veil, here.settings.home, run.ended is None and grows(name)
    return text_answer(request, handle, _media_type(name), veil, scratch, lines_alone, name)


@router.get(
    "/datasets/{dataset_id}/files/{name:path}",
    response_class=Response,
    responses=_FILE,
    operation_id="get_dataset_file",
    tags=["datasets"],
)
def get_dataset_file(
    request: Request, here: Here, caller: Reads, dataset_id: PathId, name: FilePart
) -> Response:
    """A file of a data set. Takes Range."""
    dataset = here.store.datasets.get(dataset_id)
    return file_answer(request, here.roots.open(dataset, name), _media_type(name), name)


def run_folder(here: Context, run: Run) -> Path:
    """Where a run is: below the folder of the jobs, and nowhere else.

    Raises:
        Refused: 404.
    """
    folder = Path(run.folder)
    if not folder.is_relative_to(here.settings.jobs_folder()) or ".." in folder.parts:
        raise not_found(_("The run has no folder here."))
    below = folder.relative_to(here.settings.jobs_folder()).as_posix()
    return beneath.path_below(here.settings.jobs_folder(), below)


_KNOWN = {".json": "application/json", ".jsonl": "application/jsonl", ".toml": "application/toml"}


def _media_type(name: str) -> str:
    # Always sent as an attachment and never sniffed, so that a page in it is no page of ours.
    suffix = Path(name).suffix.lower()
    return _KNOWN.get(suffix) or mimetypes.types_map.get(suffix) or "application/octet-stream"


@router.get("/models", responses=documented(304), operation_id="list_models", tags=["models"])
def list_models(
    request: Request,
    response: Response,
    here: Here,
    caller: Reads,
    project: QueryId = None,
    limit: Limit = 50,
    cursor: Cursor = "",
) -> Page[ModelView]:
    """The oldest first."""
    found = here.store.models.list(project, limit, id_of(cursor))
    items = [ModelView.of(model) for model in found]
    return paged(request, response, items, limit, found[-1].id if found else None)


@router.get("/models/{model_id}", responses=documented(304, 404), operation_id="get_model", tags=["models"])
def get_model(here: Here, caller: Reads, model_id: PathId) -> ModelView:
    """What a training left. Its files are those of its run, below model/."""
    return ModelView.of(here.store.models.get(model_id))

"""Projects: what jobs and data sets belong to."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from caudal.service.asks import NewProject, PathId
from caudal.service.auth import Reads, Runs
from caudal.service.context import Here
from caudal.service.once import Key, do_once, once_of
from caudal.service.pages import Cursor, Limit, Page, id_of, paged
from caudal.service.problems import documented
from caudal.service.routes.datasets import forget_files
from caudal.service.views import ProjectView

router = APIRouter(prefix="/projects", tags=["projects"])


@router.get("", responses=documented(304), operation_id="list_projects")
def list_projects(
    request: Request, response: Response, here: Here, caller: Reads, limit: Limit = 50, cursor: Cursor = ""
) -> Page[ProjectView]:
    """The oldest first."""
    found = here.store.projects.list(limit, id_of(cursor))
    items = [ProjectView.of(project) for project in found]
    return paged(request, response, items, limit, found[-1].id if found else None)


@router.post("", status_code=201, responses=documented(409, 413), operation_id="create_project")
def create_project(
    request: Request, response: Response, here: Here, caller: Runs, body: NewProject, key: Key = None
) -> ProjectView:
    """A new project."""
    made = do_once(
        here.store,
        once_of(caller, key, request, body),
        response,
        201,
        ProjectView,
        lambda: ProjectView.of(here.store.projects.create(body.name)),
    )
    response.headers["Location"] = f"/api/v1/projects/{made.id}"
    return made


@router.get("/{project_id}", responses=documented(304, 404), operation_id="get_project")
def get_project(here: Here, caller: Reads, project_id: PathId) -> ProjectView:
    """One project."""
    return ProjectView.of(here.store.projects.get(project_id))


@router.patch("/{project_id}", responses=documented(404, 409, 413), operation_id="rename_project")
def rename_project(here: Here, caller: Runs, project_id: PathId, body: NewProject) -> ProjectView:
    """Give it another name."""
    return ProjectView.of(here.store.projects.rename(project_id, body.name))


@router.delete(
    "/{project_id}", status_code=204, responses=documented(404, 409), operation_id="delete_project"
)
def delete_project(here: Here, caller: Runs, project_id: PathId) -> None:
    """Forget a project that has no jobs. Files that were sent are removed, those in roots are not touched."""
    for dataset in here.store.projects.delete(project_id):
        forget_files(here, dataset)

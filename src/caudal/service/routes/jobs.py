"""Jobs: asked for, listed, looked at, cancelled, tried again; their log."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Body, Query, Request, Response

from caudal.core.messages import _
from caudal.service import beneath
from caudal.service.asks import NewJob, PathId, QueryId, TrainJob
from caudal.service.auth import Reads, Runs
from caudal.service.context import Context, Here
from caudal.service.ids import new_id
from caudal.service.once import REPLAYED, Key, once_of
from caudal.service.pages import Cursor, Limit, Page, number_of, paged
from caudal.service.problems import Refused, documented
from caudal.service.records import Job, Once
from caudal.service.states import ENDED, State
from caudal.service.summary import StatusView
from caudal.service.veiled import text_answer
from caudal.service.views import AttemptView, JobView
from caudal.service.work import Verb

router = APIRouter(tags=["jobs"])
RANGES: dict[int | str, dict[str, Any]] = {
    200: {"description": "All of it", "headers": {"Accept-Ranges": {"schema": {"type": "string"}}}},
    206: {"description": "The range that was asked for"},
    416: {"description": "No such range"},
}


@router.post(
    "/jobs",
    status_code=201,
    responses={
        **documented(404, 409, 413, 507),
        200: {"description": "It was asked for before", "model": JobView},
    },
    operation_id="submit_job",
)
def submit_job(
    request: Request,
    response: Response,
    here: Here,
    caller: Runs,
    body: Annotated[NewJob, Body()],
    key: Key = None,
) -> JobView:
    """Put a job in line. With the same Idempotency-Key again it is the same job.

    What is larger than the machine, or asks for more time than there may be, is refused.
    """
    once = once_of(caller, key, request, body)
    job, new = None if once is None else here.store.jobs.earlier(once), False
    if job is None:
        job, new = _submit(here, body, once)
    if new:
        here.queue.announce(job.id)
    else:
        response.status_code = 200
        response.headers[REPLAYED] = "true"
    response.headers["Location"] = f"/api/v1/jobs/{job.id}"
    return JobView.of(job, here.roots.veil)


def _submit(here: Context, body: NewJob, once: Once | None) -> tuple[Job, bool]:
    """The job, and whether it is a new one: somebody may have asked for it a moment ago."""
    plan = here.planner.get(body.plan) if isinstance(body, TrainJob) and body.plan is not None else None
    needs: dict[str, int | None] = {"ram": None, "vram": None}
    if plan is not None and isinstance(body, TrainJob) and body.ram is None and body.vram is None:
        needs |= plan.predicted_bytes  # with another budget it will be another plan
    here.orders.check(body, needs)
    project, job_id, new = here.project(body.project), new_id(), False
    try:
        job, new = here.store.jobs.submit(
            project,
            here.orders.work(body, job_id, plan.budget_bytes if plan else None),
            name=body.name,
            priority=body.priority,
            limit_seconds=body.limit_seconds,
            ram_bytes=needs["ram"],
            vram_bytes=needs["vram"],
            once=once,
            job_id=job_id,
        )
    finally:
        if not new:
            here.orders.forget(job_id)
    return job, new


@router.get("/jobs", responses=documented(304), operation_id="list_jobs")
def list_jobs(
    request: Request,
    response: Response,
    here: Here,
    caller: Reads,
    project: QueryId = None,
    state: Annotated[list[State] | None, Query(max_length=9)] = None,
    verb: Annotated[Verb | None, Query()] = None,
    limit: Limit = 50,
    cursor: Cursor = "",
) -> Page[JobView]:
    """The newest first."""
    found = here.store.jobs.list(project, tuple(state or ()), verb, limit, number_of(cursor))
    items = [JobView.of(job, here.roots.veil) for job in found]
    return paged(request, response, items, limit, found[-1].number if found else None)


@router.get("/jobs/{job_id}", response_model=JobView, responses=documented(304, 404), operation_id="get_job")
async def get_job(here: Here, caller: Reads, job_id: PathId) -> Response:
    """One job. Its ETag is its version: ask with If-None-Match."""
    now = time.monotonic()
    job = await run_sync(here.store.jobs.get, job_id)
    body, tag = (
        JobView.of(job, here.roots.veil).model_dump_json().encode(),
        f'"{job.version}-{job.seen_event}"',
    )
    here.answers.keep(job_id, now, body, tag)
    return Response(body, media_type="application/json", headers={"ETag": tag})


@router.post(
    "/jobs/{job_id}/cancel", status_code=202, responses=documented(404, 409), operation_id="cancel_job"
)
def cancel_job(here: Here, caller: Runs, job_id: PathId) -> JobView:
    """Ask it to end. It is `cancelled` once its processes and their memory are gone."""
    job = here.store.jobs.cancel(job_id)
    here.answers.forget(job_id)
    return JobView.of(job, here.roots.veil)


@router.post(
    "/jobs/{job_id}/retry", status_code=202, responses=documented(404, 409), operation_id="retry_job"
)
def retry_job(
    here: Here,
    caller: Runs,
    job_id: PathId,
    smaller: Annotated[bool, Query(description="On a plan that holds less")] = False,
) -> JobView:
    """Try a job again that failed or was cancelled: it goes on from its last checkpoint."""
    job = here.store.jobs.retry(job_id, smaller)
    here.answers.forget(job_id)
    here.queue.announce(job_id)
    return JobView.of(job, here.roots.veil)


@router.get("/jobs/{job_id}/attempts", responses=documented(304, 404), operation_id="list_attempts")
def list_attempts(
    request: Request,
    response: Response,
    here: Here,
    caller: Reads,
    job_id: PathId,
    limit: Limit = 50,
    cursor: Cursor = "",
) -> Page[AttemptView]:
    """Each try at it, the first one first: where, how it ended, what it held."""
    found = here.store.jobs.attempts(job_id, limit, number_of(cursor) or 0)
    items = [AttemptView.of(attempt, here.roots.veil) for attempt in found]
    return paged(request, response, items, limit, found[-1].number if found else None)


@router.get("/jobs/{job_id}/status", responses=documented(304, 404), operation_id="get_status")
def get_status(here: Here, caller: Reads, job_id: PathId) -> StatusView:
    """How it stands: step, loss, figures, memory."""
    return StatusView.model_validate(
        here.roots.veil.all(here.summaries.of(here.store.jobs.get(job_id)).model_dump())
    )


@router.get("/training/status", responses=documented(304), operation_id="list_statuses")
def list_statuses(here: Here, caller: Reads) -> list[StatusView]:
    """How all that runs now stands."""
    found = [here.summaries.of(job) for job in here.store.jobs.active()]
    return [StatusView.model_validate(here.roots.veil.all(one.model_dump())) for one in found]


@router.get(
    "/jobs/{job_id}/log",
    response_class=Response,
    responses={
        **documented(304, 404, 416),
        **{
            status: {**about, "content": {"text/plain": {"schema": {"type": "string"}}}}
            for status, about in RANGES.items()
            if status != 416
        },
    },
    operation_id="get_log",
)
def get_log(request: Request, here: Here, caller: Reads, job_id: PathId) -> Response:
    """What it wrote to its log so far, in all attempts. Takes Range."""
    job = here.store.jobs.get(job_id)
    folder: Path = here.settings.job_folder(job_id)
    try:
        handle = beneath.file_below(folder, "log.txt")
    except Refused:
        raise Refused(
            404, "not_found", _("The job has written no log yet."), _("Wait until it has begun.")
        ) from None
    veil, scratch = here.roots.veil, here.settings.home
    return text_answer(request, handle, "text/plain; charset=utf-8", veil, scratch, job.state not in ENDED)

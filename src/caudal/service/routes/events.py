"""What happens in jobs: as pages, and as streams that go on where they were cut."""

from __future__ import annotations

from typing import Annotated

from anyio.to_thread import run_sync
from fastapi import APIRouter, Header, Query, Request, Response
from starlette.responses import StreamingResponse

from caudal.core.messages import _
from caudal.service import sse
from caudal.service.asks import PathId
from caudal.service.auth import Reads
from caudal.service.context import Context, Here
from caudal.service.pages import Cursor, Page, number_of, paged
from caudal.service.problems import Refused, documented
from caudal.service.views import EventView

router = APIRouter(tags=["events"])
After = Annotated[int, Query(ge=0, le=2**53, description="The id of the last event that was seen")]
LastId = Annotated[
    str | None,
    Header(alias="Last-Event-ID", max_length=18, pattern="^[0-9]*$", description="As browsers send it"),
]
_EVENT = {
    "type": "object",
    "properties": {name: {"type": "string"} for name in ("id", "event", "data", "retry")},
}
_STREAM = {
    **documented(404),
    200: {
        "description": "Events, one after the other, each with its id",
        "content": {sse.MEDIA_TYPE: {"schema": _EVENT}},
    },
    204: {"description": "The job has ended, and all of it was seen"},
}


@router.get("/jobs/{job_id}/events", responses=documented(304, 404), operation_id="list_events")
def list_events(
    request: Request,
    response: Response,
    here: Here,
    caller: Reads,
    job_id: PathId,
    after: After = 0,
    limit: Annotated[int, Query(ge=1, le=500)] = 200,
    cursor: Cursor = "",
) -> Page[EventView]:
    """What happened after an event: go on with `cursor`, or ask again with the last id that you have."""
    here.store.jobs.get(job_id)
    found = here.store.events.after(max(after, number_of(cursor) or 0), job_id, limit)
    items = [EventView.of(event, here.roots.veil) for event in found]
    return paged(request, response, items, limit, found[-1].id if found else None)


@router.get(
    "/jobs/{job_id}/events/stream",
    response_class=Response,
    responses=_STREAM,
    operation_id="stream_job_events",
)
async def stream_job_events(
    here: Here, caller: Reads, job_id: PathId, last_event_id: LastId = None, after: After = 0
) -> Response:
    """The events of a job, the earlier ones first; it ends with the job."""
    last_id = sse.place_of(last_event_id, after)
    if await sse.has_ended(here, job_id, last_id):
        return Response(status_code=204)
    return _open(here, job_id, last_id)


@router.get("/events/stream", response_class=Response, responses=_STREAM, operation_id="stream_events")
async def stream_events(
    here: Here, caller: Reads, last_event_id: LastId = None, after: After | None = None
) -> Response:
    """The events of all jobs: from now on, or from the one that was seen last."""
    newest = await run_sync(here.store.events.last_id) if last_event_id is None and after is None else None
    last_id = newest if newest is not None else sse.place_of(last_event_id, after)
    return _open(here, None, last_id)


def _open(here: Context, job_id: str | None, last_id: int) -> Response:
    if here.open_streams >= here.serving.limits.streams:
        raise Refused(
            503, "busy", _("Too many streams are open."), _("Ask for status instead."), {"Retry-After": "30"}
        )
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(sse.stream(here, job_id, last_id), media_type=sse.MEDIA_TYPE, headers=headers)

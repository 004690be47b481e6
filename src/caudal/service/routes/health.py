"""Whether it lives, whether it can work, how it does; and the front door. Outside of `/api/v1`."""

from __future__ import annotations

from html import escape
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel
from starlette.responses import HTMLResponse, RedirectResponse

from caudal import __version__
from caudal.core.errors import CaudalError
from caudal.core.messages import _
from caudal.service import metrics
from caudal.service.auth import COOKIE, Reads
from caudal.service.context import Here
from caudal.service.problems import MEDIA_TYPE, Refused, documented

router = APIRouter()
open_router = APIRouter(tags=["health"])
_COOKIE_SECONDS = 30 * 86400


class Alive(BaseModel):
    """It answers."""

    status: str
    version: str


_HEALTH: dict[int | str, dict[str, Any]] = {
    status: {
        "description": text,
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemBody"}}},
    }
    for status, text in {
        421: "Another server's name",
        403: "The request comes from another site",
        500: "A fault of the server",
        503: "Not now",
    }.items()
}


@open_router.get("/livez", responses=_HEALTH, operation_id="livez")
async def livez() -> Alive:
    """Whether it answers."""
    return Alive(status="ok", version=__version__)


@open_router.get("/readyz", responses=_HEALTH, operation_id="readyz")
def readyz(here: Here) -> Alive:
    """Whether the store answers and the queue is well: 503 if not."""
    try:
        here.store.ping()
        trouble = here.queue.trouble()
    except CaudalError as error:
        trouble = error.message
    if trouble:
        raise Refused(
            503,
            "not_ready",
            here.roots.veil(trouble),
            _("Look into the server's log."),
            {"Retry-After": "5"},
        )
    return Alive(status="ok", version=__version__)


@open_router.get(
    "/metrics",
    response_class=Response,
    responses={
        **documented(),
        200: {
            "description": "Figures for Prometheus",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        },
    },
    operation_id="metrics",
)
def get_metrics(here: Here, caller: Reads) -> Response:
    """Figures for Prometheus: requests, streams, jobs by state."""
    return Response(here.metrics.text(), media_type=metrics.MEDIA_TYPE)


@router.get("/", include_in_schema=False)
async def door(request: Request, here: Here, token: Annotated[str, Query(max_length=200)] = "") -> Response:
    """For browsers: with the token that was printed, its cookie; without, a word on where to find it."""
    if token:
        address = request.client.host if request.client else ""
        await here.keyring.caller(token, address)
        answer: Response = RedirectResponse("/", 303)
        answer.set_cookie(
            COOKIE,
            token,
            max_age=_COOKIE_SECONDS,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        answer.headers["Cache-Control"] = "no-store"
        return answer
    lines = [
        _("Caudal serves here."),
        _("Programs ask below /api/v1, with the header “Authorization: Bearer …”."),
        _("What there is stands in /api/v1/openapi.json."),
    ]
    text = "".join(f"<p>{escape(line)}</p>" for line in lines)
    return HTMLResponse(f"<!doctype html><meta charset=utf-8><title>Caudal</title>{text}")

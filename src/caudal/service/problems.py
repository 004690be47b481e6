"""Every answer that is no success: RFC 9457, in one shape, with what to do about it.

The only place where an error becomes a status.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from caudal.core.errors import (
    BadModel,
    CaudalError,
    DataError,
    DeviceMissing,
    DiskFull,
    DoesNotFit,
    OutOfMemory,
    TimeIsUp,
    UsageError,
)
from caudal.core.messages import _
from caudal.service.asks import ID_PATTERN
from caudal.service.errors import Conflict, NotFound, StoreAway

MEDIA_TYPE = "application/problem+json"
_LOG = logging.getLogger("caudal.service")

_STATUS: list[tuple[type[CaudalError], int]] = [
    (NotFound, 404),
    (Conflict, 409),
    (StoreAway, 503),
    (UsageError, 422),
    (DoesNotFit, 422),
    (DataError, 422),
    (BadModel, 422),
    (DeviceMissing, 422),
    (DiskFull, 507),
    (OutOfMemory, 503),
    (TimeIsUp, 503),
]


class WrongField(BaseModel):
    """One part of a request that is wrong: where, and why."""

    where: str
    why: str


class ProblemBody(BaseModel):
    """What went wrong (`detail`), and the mend (`hint`). `code` stays the same in all languages."""

    type: str = Field(examples=["urn:caudal:problem:not_found"])
    title: str
    status: int
    detail: str
    hint: str
    code: str
    errors: list[WrongField] = []


class Refused(HTTPException):
    """A request that is answered with a problem of this status."""

    def __init__(
        self, status: int, code: str, detail: str, hint: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(status, detail, dict(headers or {}))
        self.code = code
        self.hint = hint


def not_found(what: str) -> Refused:
    """404 for something that has no such id or name here."""
    return Refused(404, "not_found", what, _("Look at the list that it should be in."))


def problem(
    status: int,
    code: str,
    detail: str,
    hint: str = "",
    errors: list[WrongField] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The answer itself."""
    body = ProblemBody(
        type=f"urn:caudal:problem:{code}",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        hint=hint,
        code=code,
        errors=errors or [],
    )
    return JSONResponse(body.model_dump(), status, headers=headers, media_type=MEDIA_TYPE)


def status_of(error: CaudalError) -> int:
    """The status of an error of ours."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def listen(app: FastAPI) -> None:
    """Have every failure of `app` answered with a problem."""
    app.add_exception_handler(HTTPException, _of_http)
    app.add_exception_handler(RequestValidationError, _of_request)
    app.add_exception_handler(CaudalError, _of_ours)
    app.add_exception_handler(Exception, _of_a_fault)


def _plain(status: int, detail: str) -> tuple[str, str, str]:
    """Code, fact and mend for what the framework refuses by itself."""
    if status == 404:
        return (
            "not_found",
            _("There is nothing at this address."),
            _("See /api/v1/openapi.json for what there is."),
        )
    if status == 405:
        return "method", _("This address does not take that method."), _("See the header Allow.")
    return "http", detail, ""


async def _of_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(error, Refused):
        return problem(error.status_code, error.code, error.detail, error.hint, headers=error.headers)
    code, detail, hint = _plain(error.status_code, str(error.detail))
    return problem(error.status_code, code, detail, hint, headers=error.headers)


async def _of_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    wrong = [
        WrongField(where=".".join(map(str, one["loc"])), why=_printable(_why(one)))
        for one in error.errors()[:20]
    ]
    first = wrong[0]
    return problem(
        422,
        "wrong_request",
        _("“{where}” is wrong: {why}.").format(where=_printable(first.where), why=first.why.rstrip(".")),
        _("See /api/v1/openapi.json for what it takes."),
        [WrongField(where=_printable(one.where), why=one.why) for one in wrong],
    )


def _why(one: Mapping[str, Any]) -> str:
    """What is wrong with a part of a request, in words for people where the library's are for programmers."""
    about = one.get("ctx") or {}
    if one["type"] == "union_tag_invalid":
        return _("“{tag}” is none of {known}").format(tag=about.get("tag"), known=about.get("expected_tags"))
    if one["type"] == "string_pattern_mismatch" and about.get("pattern") == ID_PATTERN:
        return _("an id has 26 digits and small letters, as lists show them")
    return str(one["msg"])


def _printable(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")[:300]


async def _of_ours(request: Request, error: Exception) -> Response:
    assert isinstance(error, CaudalError)
    status = status_of(error)
    if status == 500:
        _LOG.error("%s %s: %s", request.method, request.url.path, error.code)
    headers = {"Retry-After": "2"} if status == 503 else None
    veil = getattr(request.app.state, "veil", None)
    texts = [veil(text) if veil else text for text in (error.message, error.hint)]
    return problem(status, error.code, _printable(texts[0]), _printable(texts[1]), headers=headers)


async def _of_a_fault(request: Request, error: Exception) -> Response:
    # What it was stands in the server's log; an answer might tell a stranger about the machine.
    return problem(
        500, "fault", _("The server failed at this request."), _("Look into the server's log, and report it.")
    )


_SAID: dict[int, str] = {
    304: "Not changed since the given ETag",
    400: "Not a request that can be understood",
    401: "No key, or one that is not known",
    403: "The key lacks the scope, or the request comes from another site",
    404: "No such thing",
    405: "No such method here",
    409: "It does not go with the present state",
    413: "Larger than the limit",
    415: "A format that is not taken",
    416: "No such range",
    421: "Another server's name",
    422: "A part of the request is wrong",
    429: "Too many requests",
    500: "A fault of the server",
    503: "Not now",
    507: "The disk is full",
}
EVERYWHERE = (401, 403, 421, 422, 429, 500, 503)
"""What any address with a key may answer."""


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What to give a route as `responses`: these problems beside those of `EVERYWHERE`."""
    found: dict[int | str, dict[str, Any]] = {}
    for status in sorted({*EVERYWHERE, *statuses}):
        found[status] = {"description": _SAID[status]}
        if status >= 400:
            found[status]["content"] = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemBody"}}}
    return found

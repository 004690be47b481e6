"""What every request passes before anything else: Host, Origin, headers of the answer, the log, figures.

Keys and rates are looked at in `auth.py`, bodies where they are read.
"""

from __future__ import annotations

import logging
import time

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from caudal.core.messages import _
from caudal.service.metrics import Metrics
from caudal.service.problems import problem
from caudal.service.serving import LOOPBACK, PREFIX, Serving

_LOG = logging.getLogger("caudal.access")

HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
_OURS = tuple((name.encode(), value.encode()) for name, value in HEADERS.items())
_NAMES = frozenset(name for name, _value in _OURS)
_CACHED = (b"cache-control", b"private, no-cache")


class Guards:
    """Stands around the app. Answers with a problem what is meant for another server, or comes from one."""

    def __init__(self, app: ASGIApp, serving: Serving, metrics: Metrics) -> None:
        self.app, self._metrics = app, metrics
        own = LOOPBACK if serving.host in ("127.0.0.1", "localhost", "::1") else ()
        self._names = {name.lower() for name in (*own, serving.host, f"[{serving.host}]", *serving.names)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the class."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # there are no sockets here
            await send({"type": "websocket.close", "code": 1008})
            return
        began, status, replaced = time.perf_counter(), 500, False

        async def with_headers(message: Message) -> None:
            nonlocal status, replaced
            if replaced:
                return
            if message["type"] == "http.response.start" and _is_bare(message):
                replaced = True
                await _too_large()(scope, receive, send_on)
                return
            await send_on(message)

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": _with_ours(message["headers"])}
            await send(message)

        try:
            refusal = self._refusal(Headers(scope=scope), scope.get("scheme", "http"))
            if refusal is None:
                await self.app(scope, receive, with_headers)
            else:
                await refusal(scope, receive, with_headers)
        finally:
            seconds = time.perf_counter() - began
            self._metrics.request(scope["method"], _route(scope), status, seconds)
            # Without the query: a key may stand there by mistake.
            _LOG.info("%s %s %d %.1f ms", scope["method"], scope["path"], status, 1000 * seconds)

    def _refusal(self, headers: Headers, scheme: str) -> ASGIApp | None:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or _name(hosts[0]) not in self._names:
            return problem(
                421,
                "wrong_host",
                _("This server is not known by that name."),
                _("Call it by its address, or add the name to its settings (names)."),
            )
        origin = headers.get("origin")
        if origin is not None and origin.lower() != f"{scheme}://{hosts[0].lower()}":
            return problem(
                403,
                "wrong_origin",
                _("Requests from other sites are not taken."),
                _("Call the service from its own pages, or from a program."),
            )
        return None


def _with_ours(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Raw headers of an answer with ours in them; without a search for each, for every answer has them."""
    rest = [row for row in headers if row[0] not in _NAMES]
    if any(name == _CACHED[0] for name, _value in rest):
        return [*rest, *_OURS]
    return [*rest, *_OURS, _CACHED]


def _route(scope: Scope) -> str:
    """The address with names where ids stand, so that there are only so many of them."""
    below = getattr(scope.get("route"), "path_format", None)
    if below is None:
        return "other"
    prefixed = scope["path"].startswith(PREFIX) and not below.startswith(PREFIX)
    return f"{PREFIX}{below}" if prefixed else str(below)


def _is_bare(start: Message) -> bool:
    """Whether it is what the framework says of a body that is too large, in its own words."""
    content = Headers(raw=start["headers"]).get("content-type", "")
    return bool(start["status"] == 413) and content.startswith("text/plain")


def _too_large() -> ASGIApp:
    return problem(
        413,
        "too_large",
        _("The body is larger than this address takes."),
        _("Send less, or raise the limit of the service."),
    )


def _name(host: str) -> str:
    """Without the port; `[::1]:80` is `[::1]`."""
    name, colon, port = host.lower().rpartition(":")
    return name if colon and port.isdigit() else host.lower()

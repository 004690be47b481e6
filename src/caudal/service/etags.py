"""ETags: an answer that has not changed is not sent again.

For every JSON answer to a GET: the tag is the one that the route gave, else a hash of the body.
"""

from __future__ import annotations

import hashlib

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Conditional:
    """Answers 304 where `If-None-Match` names what would be sent."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the class."""
        if scope["type"] != "http" or scope["method"] != "GET":
            await self.app(scope, receive, send)
            return
        asked = Headers(scope=scope).get("if-none-match", "")
        begun: Message | None = None

        async def pass_on(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                headers = Headers(raw=message["headers"])
                whole = message["status"] == 200 and "json" in headers.get("content-type", "")
                if not whole:
                    await send(message)
                else:
                    begun = message
            elif begun is None or message["type"] != "http.response.body":
                await send(message)
            else:
                start, begun = begun, None
                await self._send(start, message, asked, send)

        await self.app(scope, receive, pass_on)

    async def _send(self, start: Message, body: Message, asked: str, send: Send) -> None:
        headers = MutableHeaders(raw=start["headers"])
        if body.get("more_body"):  # its end is not known yet
            await send(start)
            await send(body)
            return
        tag = headers.get("etag")
        if tag is None:
            tag = f'"{hashlib.sha1(body["body"], usedforsecurity=False).hexdigest()[:20]}"'
            headers["etag"] = tag
        if not matches(asked, tag):
            await send({**start, "headers": headers.raw})
            await send(body)
            return
        for name in ("content-length", "content-type"):
            if name in headers:
                del headers[name]
        await send({**start, "status": 304, "headers": headers.raw})
        await send({"type": "http.response.body", "body": b""})


def matches(asked: str, tag: str) -> bool:
    """Whether an `If-None-Match` names `tag`; weak tags are equal to strong ones here."""
    named = {one.strip().removeprefix("W/") for one in asked.split(",")}
    return bool(asked) and ("*" in named or tag.removeprefix("W/") in named)

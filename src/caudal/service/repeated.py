"""Gives an answer about a job again while it is fresh, without the framework: what polls ask for most.

A poll costs a tenth of the processor time so, and what is not the plainest case goes the usual way: another
address, a key that was not seen lately or may not read, one that asks too often, an answer of some time ago.
"""

from __future__ import annotations

import time

from starlette.types import ASGIApp, Receive, Scope, Send

from caudal.service.auth import Keyring
from caudal.service.serving import PREFIX

_PATH = f"{PREFIX}/jobs/"
_BEARER = b"bearer "


class Answers:
    """Answers about single jobs, kept for a moment, or until there is news of the job (`Hub`).

    Whoever changes a job through this server forgets its answer, so that nobody misses their own change.
    """

    SECONDS = 1.0
    _MOST = 2000

    def __init__(self) -> None:
        self._kept: dict[str, tuple[float, bytes, str]] = {}

    def get(self, job_id: str, now: float) -> tuple[bytes, str] | None:
        """Body and ETag, if they are fresh."""
        kept = self._kept.get(job_id)
        return (kept[1], kept[2]) if kept is not None and now - kept[0] < self.SECONDS else None

    def keep(self, job_id: str, asked: float, body: bytes, tag: str) -> None:
        """Remember for a moment what the store said when it was asked."""
        if len(self._kept) >= self._MOST:
            self._kept.clear()
        self._kept[job_id] = asked, body, tag

    def forget(self, job_id: str) -> None:
        """It has changed."""
        self._kept.pop(job_id, None)


class Repeated:
    """Stands before the app, behind `Guards`; ETags are `Conditional`'s."""

    def __init__(self, app: ASGIApp, answers: Answers, keyring: Keyring) -> None:
        self.app, self._answers, self._keyring = app, answers, keyring
        self._route: object = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the class."""
        asked = scope["type"] == "http" and scope["method"] == "GET" and scope["path"].startswith(_PATH)
        known = self._known(scope) if asked else None
        if known is None:
            await self.app(scope, receive, send)
            if asked and "/" not in scope["path"][len(_PATH) :]:
                self._route = scope.get("route")  # figures are counted by it
            return
        body, tag = known
        if self._route is not None:
            scope["route"] = self._route
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"etag", tag.encode()),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _known(self, scope: Scope) -> tuple[bytes, str] | None:
        known = self._answers.get(scope["path"][len(_PATH) :], time.monotonic())
        if known is None or scope["query_string"]:
            return None
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(given) != 1 or given[0][: len(_BEARER)].lower() != _BEARER:
            return None
        key = given[0][len(_BEARER) :].strip().decode("latin-1")
        return known if self._keyring.may_read_again(key) else None

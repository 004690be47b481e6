"""The audit log: who changed what, and who was turned away. What was sent is not in it."""

from __future__ import annotations

import logging
from contextlib import suppress

from anyio.to_thread import run_sync
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from caudal.core.errors import CaudalError
from caudal.service.limits import Buckets
from caudal.service.store import Store

_LOG = logging.getLogger("caudal.service")
_READING = ("GET", "HEAD", "OPTIONS")
_STRANGERS_PER_SECOND, _STRANGERS = 0.2, 20  # entries for each address; the log must not be filled by anybody


class Audited:
    """Notes every request that changes something, and every one that was refused for its key."""

    def __init__(self, app: ASGIApp, store: Store) -> None:
        self.app, self._store = app, store
        self._strangers = Buckets(_STRANGERS_PER_SECOND, _STRANGERS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the class."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = 500

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noted)
        finally:
            await self._note(scope, status)

    async def _note(self, scope: Scope, status: int) -> None:
        caller = scope.get("state", {}).get("caller")
        changes = caller is not None and scope["method"] not in _READING
        address = scope["client"][0] if scope.get("client") else ""
        refused = status in (401, 403) and not self._strangers.take(address)
        if not (changes or refused):
            return
        actor = f"{caller.id} {caller.name}" if caller else ""
        path = scope["path"].encode("utf-8", "replace").decode("utf-8")
        with suppress(CaudalError):
            await run_sync(
                self._store.audit.add, actor, f"{scope['method']} {status}", path, address, {"status": status}
            )

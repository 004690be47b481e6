"""What the routes work with: one of each, made with the app and closed with it."""

from __future__ import annotations

from typing import Annotated

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import Depends, Request

from caudal.service.auth import Keyring
from caudal.service.errors import Conflict
from caudal.service.filling import Filling
from caudal.service.hub import Hub
from caudal.service.metrics import Metrics
from caudal.service.oidc import Issuer
from caudal.service.orders import Orders
from caudal.service.plans import Planner
from caudal.service.queues.base import Queue
from caudal.service.repeated import Answers
from caudal.service.roots import Roots
from caudal.service.sandbox import Sandbox
from caudal.service.serving import Serving
from caudal.service.settings import Settings
from caudal.service.store import Store
from caudal.service.summary import Summaries
from caudal.service.uploads import Incoming

DEFAULT_PROJECT = "default"
_HEAVY = 8  # of what takes long at a time, so that there are always threads for what does not


class Context:
    """See each attribute."""

    def __init__(self, settings: Settings, serving: Serving, store: Store, queue: Queue) -> None:
        self.settings, self.serving, self.store, self.queue = settings, serving, store, queue
        self.metrics = Metrics(store.jobs.counts)
        self.roots = Roots(settings, serving)
        self.roots.uploads.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.sandbox = Sandbox(serving.limits)
        self.incoming = Incoming(self.roots.incoming, serving.limits, self.sandbox, self.metrics)
        self.filling = Filling(store, serving.limits)
        self.keyring = Keyring(
            store, serving.limits, self.metrics, Issuer(serving.oidc) if serving.oidc else None
        )
        self.orders = Orders(store, settings, self.roots)
        self.planner = Planner(self.orders, serving.limits)
        self.answers = Answers()
        self.hub = Hub(store, self.roots.veil, self.answers.forget)
        self.summaries = Summaries(store)
        self.open_streams = 0
        self.heavy = CapacityLimiter(_HEAVY)

    def project(self, project_id: str | None) -> str:
        """That project, which is looked up, or the one that is there for all."""
        if project_id is not None:
            return self.store.projects.get(project_id).id
        for project in self.store.projects.list(limit=1):
            if project.name == DEFAULT_PROJECT:
                return project.id
        try:
            return self.store.projects.create(DEFAULT_PROJECT).id
        except Conflict:
            return next(one.id for one in self.store.projects.list(500) if one.name == DEFAULT_PROJECT)

    async def close(self) -> None:
        """End what was begun here; store and queue belong to whoever made them."""
        await self.hub.stop()
        await run_sync(self.sandbox.close)
        self.incoming.close()


def _context(request: Request) -> Context:
    found: Context = request.app.state.context
    return found


async def _here(request: Request) -> Context:
    return _context(request)


Here = Annotated[Context, Depends(_here)]

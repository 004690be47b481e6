"""The app: routes, guards, problems and document put together. Starts no server and no worker."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp

from caudal import __version__
from caudal.service import openapi, problems
from caudal.service.audit import Audited
from caudal.service.context import Context
from caudal.service.etags import Conditional
from caudal.service.guards import Guards
from caudal.service.queues.base import Queue
from caudal.service.repeated import Repeated
from caudal.service.routes import (
    datasets,
    events,
    health,
    jobs,
    keys,
    plans,
    projects,
    rasters,
    runs,
    uploads,
)
from caudal.service.serving import PREFIX, Serving
from caudal.service.settings import Settings
from caudal.service.store import Store

_ABOUT = """Train and run models on data larger than memory, inside a memory budget that is kept.

Every request needs a key: `Authorization: Bearer …`. Lists come in pages: ask again with `cursor=` and the
`next` of the page before. Times are seconds since the epoch, sizes are bytes. What is no success is a problem
as RFC 9457 has it, with `code`, `detail`, and what to do in `hint`.
"""


class Service(FastAPI):
    """The app with its guards around everything, the answer to a fault too."""

    context: Context

    def build_middleware_stack(self) -> ASGIApp:
        """See `Guards`, `Conditional`, `Repeated`, `Audited`."""
        here = self.context
        audited = Audited(super().build_middleware_stack(), here.store)
        inner = Conditional(Repeated(audited, here.answers, here.keyring))
        return Guards(inner, here.serving, here.metrics)

    def openapi(self) -> dict[str, Any]:
        """The document; see `openapi.py`."""
        return openapi.document(self)


def create_app(settings: Settings, serving: Serving, store: Store, queue: Queue) -> Service:
    """An app on a store and a queue that are open, and stay the caller's.

    Raises:
        UsageError: an issuer that is not reached by https.
    """
    context = Context(settings, serving, store, queue)

    @asynccontextmanager
    async def life(_app: FastAPI) -> AsyncIterator[None]:
        await context.hub.start()
        try:
            yield
        finally:
            await context.close()

    app = Service(
        title="Caudal",
        summary="Jobs that never die silently",
        description=_ABOUT,
        version=__version__,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        lifespan=life,
        max_body_size=int(serving.limits.body),
    )
    app.context = context
    app.state.context, app.state.keyring, app.state.veil = context, context.keyring, context.roots.veil
    problems.listen(app)
    app.include_router(health.router)
    app.include_router(health.open_router)
    for part in (projects, datasets, uploads, plans, jobs, events, runs, rasters, keys):
        app.include_router(part.router, prefix=PREFIX)
    return app

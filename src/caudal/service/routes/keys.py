"""Who may ask: keys, the audit log, the machines. For admins, mostly."""

from __future__ import annotations

import time

from fastapi import APIRouter, Request, Response

from caudal.service.asks import NewKey, PathId
from caudal.service.auth import Admins, Reads, hashed, new_key
from caudal.service.context import Here
from caudal.service.pages import Cursor, Limit, Page, id_of, number_of, paged
from caudal.service.problems import documented
from caudal.service.records import SCOPES
from caudal.service.views import AuditView, CallerView, KeyView, WorkerView

router = APIRouter(tags=["admin"])
_DAY_SECONDS = 86400.0


class MadeKey(KeyView):
    """A new key, with what it is: shown this once, and kept by nobody."""

    key: str


@router.get("/me", responses=documented(304), operation_id="get_me")
def get_me(caller: Reads) -> CallerView:
    """Who the key that was sent belongs to."""
    return CallerView(id=caller.id, name=caller.name, scopes=[scope for scope in SCOPES if caller.may(scope)])


@router.get("/keys", responses=documented(304), operation_id="list_keys")
def list_keys(
    request: Request, response: Response, here: Here, caller: Admins, limit: Limit = 50, cursor: Cursor = ""
) -> Page[KeyView]:
    """All keys, also those that were revoked; the oldest first."""
    found = here.store.keys.list(limit, id_of(cursor))
    items = [KeyView.of(key) for key in found]
    return paged(request, response, items, limit, found[-1].id if found else None)


@router.post("/keys", status_code=201, responses=documented(409, 413), operation_id="create_key")
def create_key(response: Response, here: Here, caller: Admins, body: NewKey) -> MadeKey:
    """A key for somebody. Each scope has those before it: read, run, admin."""
    key = new_key()
    expires = time.time() + body.days * _DAY_SECONDS if body.days else None
    made = here.store.keys.create(body.name, sorted(set(body.scopes)), hashed(key), expires)
    response.headers["Cache-Control"] = "no-store"
    return MadeKey(key=key, **KeyView.of(made).model_dump())


@router.delete("/keys/{key_id}", status_code=204, responses=documented(404), operation_id="revoke_key")
def revoke_key(here: Here, caller: Admins, key_id: PathId) -> None:
    """From now on it opens nothing; on other servers of the same store a few seconds later."""
    here.store.keys.revoke(key_id)
    here.keyring.forget()


@router.get("/audit", responses=documented(304), operation_id="list_audit")
def list_audit(
    request: Request, response: Response, here: Here, caller: Admins, limit: Limit = 50, cursor: Cursor = ""
) -> Page[AuditView]:
    """Who did what, when, from where; the newest first."""
    found = here.store.audit.list(limit, number_of(cursor))
    items = [AuditView.of(entry) for entry in found]
    return paged(request, response, items, limit, found[-1].id if found else None)


@router.get("/workers", responses=documented(304), operation_id="list_workers")
def list_workers(
    request: Request, response: Response, here: Here, caller: Reads, limit: Limit = 50, cursor: Cursor = ""
) -> Page[WorkerView]:
    """The machines that take jobs; those that are here for longest first."""
    after = id_of(cursor)
    found = [worker for worker in here.store.workers.list() if worker.id > after][:limit]
    items = [WorkerView.of(worker) for worker in found]
    return paged(request, response, items, limit, found[-1].id if found else None)

"""`Idempotency-Key`: the same request twice is done once, and answered as it was the first time."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from fastapi import Header, Request, Response
from pydantic import BaseModel

from caudal.service.auth import Caller
from caudal.service.records import Once
from caudal.service.store import Store
from caudal.service.store.jobs import key_was_used

Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        pattern=r"^[\x21-\x7e]+$",
        description="Your own name for this request: sent again, it is not done again",
    ),
]
M = TypeVar("M", bound=BaseModel)
REPLAYED = "Idempotency-Replayed"
_LOCKS = [threading.Lock() for _number in range(64)]


def once_of(caller: Caller, key: str | None, request: Request, body: BaseModel) -> Once | None:
    """Who asked what under which name; `None` without a name."""
    if key is None:
        return None
    asked = json.dumps(body.model_dump(mode="json"), sort_keys=True)
    text = f"{request.method} {request.url.path}\n{asked}"
    return Once(owner=caller.id, key=key, fingerprint=hashlib.sha256(text.encode()).hexdigest())


def do_once(
    store: Store, once: Once | None, response: Response, status: int, kind: type[M], make: Callable[[], M]
) -> M:
    """Do `make`, or give what was answered when it was done before.

    Raises:
        Conflict: the name stands for another request.
    """
    if once is None:
        return make()
    with _LOCKS[hash((once.owner, once.key)) % len(_LOCKS)]:
        kept = store.once.get(once.owner, once.key)
        if kept is not None and kept.fingerprint != once.fingerprint:
            raise key_was_used()
        if kept is not None:
            response.headers[REPLAYED] = "true"
            return kind.model_validate(kept.body)
        made = make()
        body: Any = made.model_dump(mode="json")
        store.once.put(once.owner, once.key, once.fingerprint, status, body)
        return made

"""Who asks: keys of the service, hashed; tokens of an OIDC issuer; the cookie of its own pages.

Three scopes, each with those before it: `read` sees, `run` uploads and starts, `admin` makes keys. A key is
256 bits of chance, so that a plain hash of it tells nobody anything.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Annotated

from anyio.to_thread import run_sync
from fastapi import Depends, Request, Security
from fastapi.security import APIKeyCookie, HTTPBearer
from fastapi.security.http import HTTPAuthorizationCredentials

from caudal.core.messages import _
from caudal.service.limits import Buckets
from caudal.service.metrics import Metrics
from caudal.service.oidc import Issuer
from caudal.service.problems import Refused
from caudal.service.records import SCOPES, Scope
from caudal.service.serving import Limits
from caudal.service.store import Store

COOKIE = "caudal_key"
_PREFIX = "caudal_"
_KNOWN_SECONDS = 5.0  # a key that another server revoked is refused after so long
_NOTED_SECONDS = 60.0  # to which it is known when a key was used last
_REMEMBERED = 4096
_LONGEST_KEY = 8192


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody with a good key. `id` names the key, or the subject of a token; never the key itself."""

    id: str
    name: str
    scopes: frozenset[str]

    def may(self, scope: Scope) -> bool:
        """Whether the scope is among theirs, or below one of theirs."""
        return any(SCOPES.index(scope) <= SCOPES.index(own) for own in SCOPES if own in self.scopes)


def new_key() -> str:
    """A key that nobody else has."""
    return _PREFIX + secrets.token_urlsafe(32)


def hashed(key: str) -> str:
    """What is stored of a key."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


class Keyring:
    """Finds out who a key belongs to, and how often they may ask."""

    def __init__(self, store: Store, limits: Limits, metrics: Metrics, issuer: Issuer | None = None) -> None:
        self._store, self._metrics, self._issuer = store, metrics, issuer
        self._known: OrderedDict[str, tuple[Caller | None, float]] = OrderedDict()
        self._looking: dict[str, asyncio.Task[Caller | None]] = {}
        self._asked = Buckets(limits.requests_per_second, limits.burst)
        self._refused = Buckets(limits.refusals_per_minute / 60, max(1.0, limits.refusals_per_minute))

    async def caller(self, key: str | None, address: str) -> Caller:
        """Who gave `key`.

        Raises:
            Refused: 401 without a good key, 429 if they ask too often.
        """
        found = await self._find(key) if key and len(key) <= _LONGEST_KEY else None
        if found is None:
            self._metrics.refused.inc()
            _slower(self._refused.take(address))
            raise Refused(
                401,
                "no_key",
                _("This needs a key that the service knows."),
                _("Send the header “Authorization: Bearer …” with the token that `caudal serve` printed."),
                {"WWW-Authenticate": 'Bearer realm="caudal"'},
            )
        _slower(self._asked.take(found.id))
        return found

    def may_read_again(self, key: str) -> bool:
        """Whether a key was good a moment ago, may read, and does not ask too often; looks nothing up."""
        if len(key) > _LONGEST_KEY:
            return False
        found, until = self._known.get(hashed(key), (None, 0.0))
        if found is None or until <= time.monotonic() or not found.may("read"):
            return False
        return not self._asked.take(found.id)

    def forget(self) -> None:
        """Look every key up again; after one was revoked."""
        self._known.clear()
        self._looking.clear()

    async def _find(self, key: str) -> Caller | None:
        name = hashed(key)
        known = self._known.get(name)
        if known is not None and known[1] > time.monotonic():
            return known[0]
        looking = self._looking.get(name)
        if looking is None:  # all who give a key just when it is due wait for one look
            looking = self._looking[name] = asyncio.create_task(self._look(name, key))
        return await asyncio.shield(looking)

    async def _look(self, name: str, key: str) -> Caller | None:
        me = asyncio.current_task()
        try:
            if key.startswith(_PREFIX):
                found = await run_sync(self._of_store, name)
            else:
                found = await run_sync(self._of_issuer, key)
            if self._looking.get(name) is me:  # else a key was revoked meanwhile
                self._known[name] = found, time.monotonic() + _KNOWN_SECONDS
                while len(self._known) > _REMEMBERED:
                    self._known.popitem(last=False)
            return found
        finally:
            if self._looking.get(name) is me:
                del self._looking[name]

    def _of_store(self, name: str) -> Caller | None:
        key = self._store.keys.by_hash(name)
        if key is None or key.revoked is not None or (key.expires is not None and key.expires <= time.time()):
            return None
        if key.last_used is None or time.time() - key.last_used > _NOTED_SECONDS:
            self._store.keys.used(key.id)
        return Caller(f"key:{key.id}", key.name, frozenset(key.scopes))

    def _of_issuer(self, token: str) -> Caller | None:
        who = self._issuer.check(token) if self._issuer else None
        return Caller(f"oidc:{who.subject}", who.subject, frozenset(who.scopes)) if who else None


def _slower(seconds: float) -> None:
    if seconds:
        raise Refused(
            429,
            "too_often",
            _("Too many requests."),
            _("Wait as long as the header Retry-After says."),
            {"Retry-After": str(max(1, round(seconds)))},
        )


_bearer = HTTPBearer(
    auto_error=False, scheme_name="key", description="A key of the service, or of its issuer"
)
_cookie = APIKeyCookie(name=COOKIE, auto_error=False, scheme_name="cookie", description="Of its own pages")


async def _caller(
    request: Request,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)],
    cookie: Annotated[str | None, Security(_cookie)],
) -> Caller:
    keyring: Keyring = request.app.state.keyring
    given = bearer.credentials if bearer else cookie
    caller = await keyring.caller(given, request.client.host if request.client else "")
    request.state.caller = caller
    return caller


def _needs(scope: Scope, caller: Caller) -> Caller:
    if not caller.may(scope):
        raise Refused(
            403,
            "scope",
            _("This key may not do that: it lacks the scope “{scope}”.").format(scope=scope),
            _("Use a key that has it; an admin can make one."),
        )
    return caller


async def _reader(caller: Annotated[Caller, Depends(_caller)]) -> Caller:
    return _needs("read", caller)


async def _runner(caller: Annotated[Caller, Depends(_caller)]) -> Caller:
    return _needs("run", caller)


async def _admin(caller: Annotated[Caller, Depends(_caller)]) -> Caller:
    return _needs("admin", caller)


Reads = Annotated[Caller, Depends(_reader)]
Runs = Annotated[Caller, Depends(_runner)]
Admins = Annotated[Caller, Depends(_admin)]

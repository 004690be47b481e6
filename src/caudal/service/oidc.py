"""Tokens of an OpenID Connect issuer: signed by one of its keys, for us, now. Only public keys are taken.

The issuer is one that the settings name. Its keys are fetched when the first token comes, then now and then,
and when a token names a key that is not known yet; never where a token says.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from caudal.core.errors import UsageError
from caudal.core.messages import _
from caudal.service.serving import Oidc

_LOG = logging.getLogger("caudal.service")
_ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA", "Ed25519"]
_SAFE_TYPES = ("RSA", "EC", "OKP")
_FRESH_SECONDS = 600.0
_AGAIN_SECONDS = 10.0
_FETCH_SECONDS = 5.0
_MOST_BYTES = 2**20
_LEEWAY_SECONDS = 30


@dataclass(frozen=True)
class Who:
    """The subject of a token, and the scopes that it grants here."""

    subject: str
    scopes: tuple[str, ...]


class Issuer:
    """Checks tokens. Thread-safe."""

    def __init__(
        self,
        settings: Oidc,
        fetch: Callable[[str], Any] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        place = urlsplit(settings.issuer)
        loopback = place.hostname in ("127.0.0.1", "localhost", "::1")
        if place.scheme != "https" and not (place.scheme == "http" and loopback):
            raise UsageError(
                _("The issuer {issuer} is not reached by https.").format(issuer=settings.issuer),
                _("Give an address that begins with https://."),
            )
        self._settings, self._fetch, self._clock = settings, fetch or _fetched, clock
        self._keys: KeySet | None = None
        self._fetched = self._tried = float("-inf")
        self._lock = threading.Lock()

    def check(self, token: str) -> Who | None:
        """Whose token it is; `None` if it is none of ours, or not valid now. Never raises."""
        if token.count(".") != 2:
            return None
        try:
            claims = self._claims(token)
        except (JoseError, ValueError, KeyError, TypeError, OSError) as error:
            # The token itself is a secret, and so may be parts of it in an error's text.
            _LOG.info("a token was refused: %s", type(error).__name__)
            return None
        subject = claims.get("sub")
        if not isinstance(subject, str) or not 0 < len(subject) <= 200:
            return None
        given = claims.get(self._settings.scope_claim, "")
        words = given.split() if isinstance(given, str) else given if isinstance(given, list) else []
        scopes = [word.removeprefix("caudal:") for word in map(str, words) if word.startswith("caudal:")]
        return Who(subject, tuple(scopes))

    def _claims(self, token: str) -> dict[str, Any]:
        registry = jwt.JWTClaimsRegistry(
            now=int(self._clock()),
            leeway=_LEEWAY_SECONDS,
            iss={"essential": True, "value": self._settings.issuer},
            aud={"essential": True, "value": self._settings.audience},
            exp={"essential": True},
        )
        try:
            found = jwt.decode(token, self._known(), algorithms=_ALGORITHMS)
        except (JoseError, ValueError, KeyError):
            if not self._renew(_AGAIN_SECONDS):  # perhaps it was signed with a key that is new
                raise
            found = jwt.decode(token, self._known(), algorithms=_ALGORITHMS)
        registry.validate(found.claims)
        return dict(found.claims)

    def _known(self) -> KeySet:
        if self._keys is None or time.monotonic() - self._fetched > _FRESH_SECONDS:
            self._renew(_AGAIN_SECONDS)
        if self._keys is None:
            raise ValueError("no keys")
        return self._keys

    def _renew(self, seconds: float) -> bool:
        """Fetch the keys again, unless that was tried within `seconds`; whether they were fetched."""
        with self._lock:
            if time.monotonic() - self._tried < seconds:
                return False
            self._tried = time.monotonic()
            issuer = self._settings.issuer.rstrip("/")
            try:
                about = self._fetch(issuer + "/.well-known/openid-configuration")
                if about["issuer"] != self._settings.issuer:
                    raise ValueError("it says that it is another issuer")
                where = about["jwks_uri"]
                if urlsplit(where).scheme != urlsplit(issuer).scheme:
                    raise ValueError("its keys are elsewhere")
                keys = [key for key in self._fetch(where)["keys"] if key.get("kty") in _SAFE_TYPES]
                self._keys = KeySet.import_key_set({"keys": keys})
            except Exception as error:
                _LOG.warning("the keys of the issuer cannot be fetched: %s", type(error).__name__)
                return False
            self._fetched = time.monotonic()
            return True


def _fetched(url: str) -> Any:
    import httpx

    with httpx.Client(follow_redirects=False, timeout=_FETCH_SECONDS, trust_env=False) as client:
        answer = client.get(url).raise_for_status()
        if len(answer.content) > _MOST_BYTES:
            raise ValueError("too long")
        return answer.json()

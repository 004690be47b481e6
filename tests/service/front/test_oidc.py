"""Tokens of an issuer on loopback: good ones are taken, everything else is not."""

from __future__ import annotations

import base64
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey

from caudal.core.errors import UsageError
from caudal.service.oidc import Issuer
from caudal.service.serving import Oidc
from tests.service.front.conftest import Front

KEY = RSAKey.generate_key(2048, {"kid": "one", "use": "sig"})
OTHER = RSAKey.generate_key(2048, {"kid": "two", "use": "sig"})


@pytest.fixture
def issuer() -> Iterator[str]:
    """A server with the two documents of an issuer."""
    documents: dict[str, Any] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(documents.get(self.path, {})).encode()
            self.send_response(200 if self.path in documents else 404)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_given: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    url = f"http://127.0.0.1:{server.server_address[1]}"
    documents["/.well-known/openid-configuration"] = {"issuer": url, "jwks_uri": f"{url}/keys"}
    documents["/keys"] = {"keys": [KEY.as_dict(private=False)]}
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield url
    server.shutdown()
    thread.join()
    server.server_close()


def claims(url: str, **changed: Any) -> dict[str, Any]:
    now = int(time.time())
    given = {"iss": url, "aud": "caudal", "sub": "ana", "exp": now + 60, "scope": "openid caudal:run"}
    return {key: value for key, value in {**given, **changed}.items() if value is not None}


def _plain(values: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(values).encode()).rstrip(b"=").decode()


def token(given: dict[str, Any], key: Any = KEY, algorithm: str = "RS256") -> str:
    return jwt.encode({"alg": algorithm, "kid": key.kid}, given, key, algorithms=[algorithm])


def test_a_token_of_the_issuer_opens_what_its_scopes_say(
    issuer: str, make_front: Callable[..., Front]
) -> None:
    front = make_front(oidc=Oidc(issuer=issuer, audience="caudal"))
    headers = {"Authorization": f"Bearer {token(claims(issuer))}"}
    me = front.get("/me", headers=headers).json()
    assert (me["id"], me["scopes"]) == ("oidc:ana", ["read", "run"])
    assert front.get("/keys", headers=headers).status_code == 403
    assert (
        front.get("/me", headers={"Authorization": f"Bearer {token(claims(issuer, aud='x'))}"}).status_code
        == 401
    )


def test_a_token_that_is_wrong_in_any_way_is_refused(issuer: str) -> None:
    checks = Issuer(Oidc(issuer=issuer, audience="caudal"))
    assert checks.check(token(claims(issuer))) is not None
    good = token(claims(issuer))
    # Signed with the public key, as if that were a secret that both share.
    said = f"{_plain({'alg': 'HS256', 'kid': 'one'})}.{_plain(claims(issuer))}"
    mac = hmac.digest(KEY.as_pem(private=False), said.encode(), "sha256")
    confused = f"{said}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"
    wrong = [
        token(claims(issuer, exp=int(time.time()) - 3600)),
        token(claims(issuer, exp=None)),
        token(claims(issuer, aud="another")),
        token(claims(issuer, aud=None)),
        token(claims("https://elsewhere.example")),
        token(claims(issuer, nbf=int(time.time()) + 3600)),
        token(claims(issuer, sub=None)),
        token(claims(issuer, sub="x" * 300)),
        token(claims(issuer), OTHER),
        confused,
        good[:-4] + "AAAA",
        good.rpartition(".")[0] + ".",
        "eyJhbGciOiJub25lIn0." + good.split(".")[1] + ".",
        "a.b.c",
        "....",
        "",
    ]
    assert [checks.check(one) for one in wrong] == [None] * len(wrong)


def test_an_issuer_that_is_away_or_lies_opens_nothing() -> None:
    settings = Oidc(issuer="https://issuer.example", audience="caudal")

    def away(_url: str) -> Any:
        raise OSError

    def lies(url: str) -> Any:
        return {"issuer": "https://other.example", "jwks_uri": url}

    good = token(claims("https://issuer.example"))
    assert Issuer(settings, fetch=away).check(good) is None
    assert Issuer(settings, fetch=lies).check(good) is None


def test_an_issuer_has_to_be_reached_by_https() -> None:
    with pytest.raises(UsageError, match="https"):
        Issuer(Oidc(issuer="http://issuer.example", audience="caudal"))

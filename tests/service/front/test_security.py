"""Who may ask, from where, how often; and that no secret is written down."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from caudal.service.auth import hashed
from caudal.service.limits import Buckets
from caudal.service.records import SCOPES
from caudal.service.server import Discreet, local_token
from caudal.service.serving import Limits
from tests.service.front.conftest import BASE, QUIET, Front


def test_each_scope_has_those_before_it_and_no_more(front: Front) -> None:
    def allowed(key: str) -> list[bool]:
        headers = {"Authorization": f"Bearer {key}"}
        asked = [
            front.get("/jobs", headers=headers),
            front.post("/projects", {"name": key[-20:]}, headers=headers),
            front.get("/keys", headers=headers),
        ]
        return [answer.status_code < 400 for answer in asked]

    assert [allowed(front.new_key(scope)) for scope in SCOPES] == [
        [True, False, False],
        [True, True, False],
        [True, True, True],
    ]


def test_a_key_is_shown_once_kept_as_a_hash_and_revoked_at_once(front: Front) -> None:
    made = front.post("/keys", {"name": "for a friend", "scopes": ["read"]}).json()
    own = {"Authorization": f"Bearer {made['key']}"}
    assert front.get("/me", headers=own).json()["scopes"] == ["read"]
    assert made["key"] not in front.get("/keys").text
    assert front.store.keys.by_hash(hashed(made["key"])) is not None
    stored = b"".join(path.read_bytes() for path in front.home.rglob("*.db*"))
    assert made["key"].encode() not in stored
    assert front.http.delete(f"/api/v1/keys/{made['id']}").status_code == 204
    assert front.get("/me", headers=own).status_code == 401


def test_without_a_good_key_nothing_is_told(front: Front) -> None:
    document = front.get("/openapi.json").json()
    plain = {"Authorization": ""}
    for path, operations in document["paths"].items():
        if path in ("/livez", "/readyz"):
            continue
        address = path.replace("{", "").replace("}", "")
        for method in operations:
            answer = front.http.request(method.upper(), address, headers=plain)
            assert answer.status_code == 401, (method, path)
            assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil:80", "", "[::2]"])
def test_a_request_for_another_name_is_refused(front: Front, host: str) -> None:
    assert front.http.get("/livez", headers={"Host": host}).status_code == 421


@pytest.mark.parametrize("host", ["127.0.0.1:1", "localhost", "LOCALHOST:8741", "[::1]:8741"])
def test_the_own_names_are_taken(front: Front, host: str) -> None:
    assert front.http.get("/livez", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1:1", "https://127.0.0.1:8741"]
)
def test_other_sites_are_refused_and_told_nothing_of_sharing(front: Front, origin: str) -> None:
    for method in ("GET", "POST", "OPTIONS"):
        answer = front.http.request(method, "/api/v1/jobs", headers={"Origin": origin})
        assert answer.status_code == 403
        assert not [name for name in answer.headers if name.startswith("access-control")]
    assert front.get("/jobs", headers={"Origin": BASE}).status_code == 200


def test_every_answer_carries_the_headers_that_browsers_obey(front: Front) -> None:
    answers = [
        front.http.get("/"),
        front.get("/jobs"),
        front.get("/x"),
        front.get("/me", headers={"Host": "x"}),
    ]
    for answer in answers:
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["x-frame-options"] == "DENY"


def test_the_printed_token_becomes_a_cookie_that_scripts_and_other_sites_do_not_get(front: Front) -> None:
    bare = {"Authorization": ""}
    answer = front.http.get(f"/?token={front.key}", headers=bare, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert front.get("/me", headers=bare).status_code == 200  # the client kept the cookie
    front.http.cookies.clear()
    assert front.http.get("/?token=wrong", headers=bare).status_code == 401


def test_a_bucket_gives_no_more_than_its_rate_and_its_size() -> None:
    now = 0.0
    buckets = Buckets(2.0, 3, clock=lambda: now)
    assert [buckets.take("a") for _n in range(4)] == [0, 0, 0, 0.5]
    assert buckets.take("b") == 0
    now = 1.0
    assert [bool(buckets.take("a")) for _n in range(3)] == [False, False, True]


def test_who_asks_too_often_is_told_when_to_come_back(make_front: Callable[..., Front]) -> None:
    front = make_front(limits=Limits(requests_per_second=0.01, burst=3, refusals_per_minute=1e6))
    codes = [front.get("/me").status_code for _n in range(5)]
    assert codes == [200, 200, 200, 429, 429]
    assert int(front.get("/me").headers["retry-after"]) >= 1


def test_who_guesses_keys_is_slowed_down(make_front: Callable[..., Front]) -> None:
    front = make_front(limits=Limits(refusals_per_minute=5))
    codes = [
        front.get("/me", headers={"Authorization": f"Bearer caudal_{number}"}).status_code
        for number in range(8)
    ]
    assert codes == [401] * 5 + [429] * 3
    assert front.get("/me").status_code == 200  # a good key is not held up by that


def test_what_changes_something_and_who_is_turned_away_is_in_the_audit_log(front: Front) -> None:
    made = front.post("/projects", {"name": "p"}).json()
    front.http.delete(f"/api/v1/projects/{made['id']}")
    front.get("/me", headers={"Authorization": "Bearer caudal_wrong"})
    front.get("/jobs")
    entries = front.get("/audit").json()["items"]
    assert [entry["action"] for entry in entries] == ["GET 401", "DELETE 204", "POST 201"]
    assert entries[1]["actor"].startswith("key:")
    assert entries[1]["object"] == f"/api/v1/projects/{made['id']}"


def test_no_secret_is_logged_or_audited(front: Front, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        front.get("/me", headers={"Authorization": ""}, params={"token": front.key})
        front.http.get(f"/?token={front.key}", headers={"Authorization": ""}, follow_redirects=False)
        front.get(f"/jobs?cursor={front.key}")
        front.post("/keys", {"name": front.key, "scopes": ["read"]}, headers={"Cookie": f"x={front.key}"})
    ours = [record for record in caplog.records if record.name.startswith("caudal")]
    formatter = Discreet("%(message)s")
    assert ours
    assert not [record for record in ours if front.key in formatter.format(record)]
    assert not [record for record in ours if front.key in record.getMessage()]
    audit = front.get("/audit").text
    assert front.key not in audit


@pytest.mark.parametrize(
    "secret",
    [
        "caudal_" + "a" * 43,
        "Bearer abc.def.ghi",
        "eyJhbGciOi.eyJzdWIi.c2lnbmF0",
        "postgresql://user:hunter2@host/db",
        "redis://:hunter2@host/0",
    ],
)
def test_what_looks_like_a_secret_is_never_written(secret: str) -> None:
    try:
        raise ValueError(f"cannot use {secret}")
    except ValueError as error:
        info = (type(error), error, error.__traceback__)
    record = logging.LogRecord("x", logging.ERROR, __file__, 1, "it is %s", (secret,), info)
    text = Discreet("%(message)s").format(record)
    assert secret not in text
    assert "hunter2" not in text
    assert "cannot use" in text


def test_the_token_of_the_owner_is_theirs_alone_and_stays(front: Front) -> None:
    token = local_token(front.home, front.store)
    path = front.home / "token"
    assert path.stat().st_mode & 0o777 == 0o600
    assert local_token(front.home, front.store) == token
    key = front.store.keys.by_hash(hashed(token))
    assert key is not None
    front.store.keys.revoke(key.id)
    assert local_token(front.home, front.store) != token


def test_the_state_of_the_service_is_not_for_others(front: Front) -> None:
    for name in ("uploads", "plans", "incoming"):
        assert (front.home / name).stat().st_mode & 0o077 == 0
    assert Path(front.home).is_dir()
    assert QUIET.body == Limits().body

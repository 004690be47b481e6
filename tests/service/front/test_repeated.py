"""An answer that is given again is the one that the app would give, to nobody who would not get it."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable

import pytest

from caudal.service.auth import Keyring
from caudal.service.repeated import Answers
from caudal.service.server import _listening
from caudal.service.serving import Limits, Serving
from tests.service.front.conftest import Front

WITHOUT_END = 1e9


@pytest.fixture
def polled(front: Front, monkeypatch: pytest.MonkeyPatch) -> tuple[Front, str]:
    """A front whose answer about a job stays fresh, and is known."""
    monkeypatch.setattr(Answers, "SECONDS", WITHOUT_END)
    job = front.job()["id"]
    assert front.get(f"/jobs/{job}").status_code == 200
    return front, f"/jobs/{job}"


def test_it_is_the_same_answer_without_a_look_at_the_store(
    polled: tuple[Front, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    front, path = polled
    usual = front.get(path, params={"x": "1"})  # a query goes the usual way
    monkeypatch.setattr(front.store.jobs, "get", lambda _id: pytest.fail("the store was asked"))
    again = front.get(path)
    assert (again.status_code, again.content) == (200, usual.content)
    assert dict(again.headers) == dict(usual.headers)
    unchanged = front.get(path, headers={"If-None-Match": again.headers["etag"]})
    assert (unchanged.status_code, unchanged.content) == (304, b"")


def test_it_is_counted_as_an_answer_of_its_address(polled: tuple[Front, str]) -> None:
    front, path = polled
    front.get(path)
    text = front.http.get("/metrics").text
    line = next(
        line for line in text.splitlines() if 'route="/api/v1/jobs/{job_id}"' in line and "count" in line
    )
    assert float(line.split()[-1]) == 2


@pytest.mark.parametrize(
    "header", [{}, {"Authorization": "Bearer caudal_wrong"}, {"Authorization": "Basic x"}]
)
def test_without_a_good_key_there_is_no_answer(polled: tuple[Front, str], header: dict[str, str]) -> None:
    front, path = polled
    del front.http.headers["Authorization"]
    assert front.get(path, headers=header).status_code == 401


def test_a_revoked_key_gets_none(polled: tuple[Front, str]) -> None:
    front, path = polled
    made = front.post("/keys", {"name": "a", "scopes": ["read"]}).json()
    other = {"Authorization": f"Bearer {made['key']}"}
    assert [front.get(path, headers=other).status_code for _n in range(2)] == [200, 200]
    assert front.http.delete(f"/api/v1/keys/{made['id']}").status_code < 300
    assert front.get(path, headers=other).status_code == 401


def test_who_asks_too_often_is_told_so(
    make_front: Callable[..., Front], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Answers, "SECONDS", WITHOUT_END)
    front = make_front(limits=Limits(requests_per_second=0.01, burst=6))
    path = f"/jobs/{front.job()['id']}"
    codes = [front.get(path).status_code for _n in range(6)]
    assert codes[:2] == [200, 200]
    assert codes[-1] == 429


def test_who_changes_a_job_sees_it(polled: tuple[Front, str]) -> None:
    front, path = polled
    assert front.get(path).json()["state"] == "queued"
    front.post(f"{path}/cancel")
    assert front.get(path).json()["state"] == "cancelled"


def test_who_comes_together_waits_for_one_look_at_a_key(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else all who poll would ask the store at once whenever it is due."""
    looks, go_on = [], threading.Event()
    of_store = Keyring._of_store

    def slowly(self: Keyring, name: str) -> object:
        looks.append(name)
        assert go_on.wait(20)
        return of_store(self, name)

    monkeypatch.setattr(Keyring, "_of_store", slowly)
    keyring = Keyring(front.store, front.app.context.serving.limits, front.app.context.metrics)

    async def together() -> list[object]:
        asked = [asyncio.create_task(keyring.caller(front.key, "")) for _n in range(20)]
        while not looks:
            await asyncio.sleep(0)
        go_on.set()
        return list(await asyncio.gather(*asked))

    callers = asyncio.run(together())
    assert len(looks) == 1
    assert len({id(caller) for caller in callers}) == 1


def test_a_connection_sends_what_it_has_at_once() -> None:
    """Else the body waits until the client has confirmed the head, which takes it 40 ms."""
    listener = _listening(Serving(port=0))
    with listener, socket.create_connection(listener.getsockname()[:2]):
        line, _address = listener.accept()
        with line:
            assert line.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1

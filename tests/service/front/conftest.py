"""The app on a real store, with a queue that only remembers what it was told."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import uvicorn
from starlette.testclient import TestClient

from caudal.service.app import Service, create_app
from caudal.service.auth import hashed, new_key
from caudal.service.sandbox import Sandbox
from caudal.service.serving import Limits, Serving
from caudal.service.settings import Settings
from caudal.service.store import Store, open_store

BASE = "http://127.0.0.1:8741"
QUIET = Limits(requests_per_second=1e6, burst=10**6, refusals_per_minute=1e6, stream_seconds=2.0)


@dataclass
class RememberingQueue:
    """A queue without workers."""

    told: list[str] = field(default_factory=list)
    wrong: str = ""

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass

    def announce(self, job_id: str) -> None:
        self.told.append(job_id)

    def trouble(self) -> str:
        return self.wrong


class Borrowed:
    """A sandbox that is not closed by who has borrowed it."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.ask = sandbox.ask

    def close(self) -> None:
        pass


class Front:
    """An app, a client with all scopes, and what stands behind it."""

    def __init__(self, home: Path, serving: Serving, store: Store) -> None:
        self.home, self.store, self.queue = home, store, RememberingQueue()
        self.settings = Settings(home=home)
        self.app: Service = create_app(self.settings, serving, store, self.queue)
        self.key = self.new_key("admin")
        self.http = TestClient(self.app, base_url=BASE, raise_server_exceptions=False)
        self.http.headers["Authorization"] = f"Bearer {self.key}"

    def new_key(self, *scopes: str) -> str:
        key = new_key()
        self.store.keys.create("test", list(scopes), hashed(key))
        return key

    def get(self, path: str, **given: Any) -> httpx.Response:
        return self.http.get(f"/api/v1{path}", **given)

    def post(self, path: str, body: Any = None, **given: Any) -> httpx.Response:
        return self.http.post(f"/api/v1{path}", json=body, **given)

    def put(self, path: str, content: bytes, **given: Any) -> httpx.Response:
        return self.http.put(f"/api/v1{path}", content=content, **given)

    def dataset(self, name: str = "sent", **body: Any) -> dict[str, Any]:
        answer = self.post("/datasets", {"name": name, **body})
        assert answer.status_code == 201, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def job(self, **given: Any) -> dict[str, Any]:
        """A job that nobody takes."""
        sets = self.get("/datasets").json()["items"]
        dataset = sets[0] if sets else self.dataset()
        answer = self.post("/jobs", {"verb": "pack", "data": {"dataset": dataset["id"]}}, **given)
        assert answer.status_code in (200, 201), answer.text
        found: dict[str, Any] = answer.json()
        return found


@pytest.fixture(scope="session")
def empty_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder with an empty store, to be copied: migrations take a while."""
    home = tmp_path_factory.mktemp("empty") / "home"
    open_store(Settings(home=home)).close()
    return home


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder that data sets may be in, with a secret beside it."""
    folder = tmp_path / "data" / "scenes"
    (folder / "roofs").mkdir(parents=True)
    (folder / "roofs" / "a.csv").write_text("x,y\n1,2\n")
    (folder / "roofs" / "ñ b.csv").write_text("x,y\n3,4\n")
    (tmp_path / "data" / "secret.csv").write_text("SECRET")
    (folder / "out").symlink_to(tmp_path / "data")
    (folder / "roofs" / "link.csv").symlink_to(tmp_path / "data" / "secret.csv")
    return folder


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    """One for all tests: its children take seconds to start."""
    shared = Sandbox(QUIET)
    yield shared
    shared.close()


@pytest.fixture
def make_front(
    tmp_path: Path, root: Path, empty_home: Path, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Front]]:
    """Builds fronts; ends them all."""
    made: list[Front] = []

    class Shared(Sandbox):
        def __new__(cls, limits: Limits) -> Sandbox:  # type: ignore[misc]
            same = limits.model_copy(update={"stream_seconds": QUIET.stream_seconds}) == QUIET
            return Borrowed(sandbox) if same else Sandbox(limits)  # type: ignore[return-value]

    monkeypatch.setattr("caudal.service.context.Sandbox", Shared)

    def make(**serving: Any) -> Front:
        home = tmp_path / f"home{len(made)}"
        shutil.copytree(empty_home, home)
        given = {"roots": {"scenes": root}, "limits": QUIET, **serving}
        front = Front(home, Serving(**given), open_store(Settings(home=home), migrate=False))
        front.http.__enter__()
        made.append(front)
        return front

    yield make
    for front in made:
        front.http.__exit__(None, None, None)
        front.store.close()


@pytest.fixture
def front(make_front: Callable[..., Front]) -> Front:
    """One with the usual settings."""
    return make_front()


@contextmanager
def listening(front: Front) -> Iterator[str]:
    """A front behind a server that really listens, on loopback; its address."""
    config = uvicorn.Config(front.app, port=0, log_level="error", lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    started = threading.Event()
    begin = server.startup

    async def startup(sockets: Any = None) -> None:
        await begin(sockets)
        started.set()

    server.startup = startup  # type: ignore[method-assign]
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert started.wait(20)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def served(make_front: Callable[..., Front]) -> Iterator[tuple[Front, str]]:
    """A front that listens, and its address."""
    front = make_front()
    with listening(front) as url:
        yield front, url

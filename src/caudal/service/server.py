"""`caudal serve`: store, queue and app in one process that listens. Ends them in order."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import uvicorn

from caudal.core.errors import UsageError
from caudal.core.files import write_whole
from caudal.core.messages import _
from caudal.memory import allocator
from caudal.service.app import Service, create_app
from caudal.service.auth import hashed, new_key
from caudal.service.heads import BoundedHeads
from caudal.service.queues import open_queue
from caudal.service.serving import LOOPBACK, Serving
from caudal.service.settings import Settings
from caudal.service.store import Store, open_store

_GRACE_SECONDS = 10
_IDLE_SECONDS = 65  # longer than clients that poll wait: one that asks just as it is hung up on sees an error
_WAITING = 1024
_SECRETS = re.compile(
    r"caudal_[A-Za-z0-9_-]{16,}|(?i:bearer)\s+\S+|eyJ[\w-]+\.[\w-]+\.[\w-]*|(?<=://)[^/\s:@]*:[^/\s@]+(?=@)"
)


class Discreet(logging.Formatter):
    """Writes what is logged, but for what may be a secret, wherever it came from."""

    def format(self, record: logging.LogRecord) -> str:
        """As it is, with `…` for keys, tokens and passwords."""
        return _SECRETS.sub("…", super().format(record))


class _Server(uvicorn.Server):
    """Tells when it listens, and ends the streams before it waits for them to end."""

    def __init__(self, config: uvicorn.Config, app: Service, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._app, self._ready = app, ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._app.context.hub.stop()
        await super().shutdown(sockets)


def run_server(
    settings: Settings, serving: Serving, ready: Callable[[str, str], None], with_queue: bool = True
) -> None:
    """Serve until SIGTERM or SIGINT. `ready` is told the URL and the token once requests are taken.

    Without the queue's processes jobs wait until a worker is started elsewhere.

    Raises:
        UsageError: the port is taken, a root is no folder, or a wrong issuer or broker.
        StoreAway: the database does not answer.
    """
    for name, folder in serving.roots.items():
        if not re.fullmatch(r"[\w.-]{1,40}", name) or not folder.expanduser().is_dir():
            raise UsageError(
                _("The root {name} is no folder: {path}.").format(name=name, path=folder),
                _("Give it as --root NAME=FOLDER, with a short name."),
            )
    allocator.let_go()
    _log()
    with open_store(settings) as store, _listening(serving) as listener:
        token = local_token(settings.home, store)
        queue = open_queue(settings)
        app = create_app(settings, serving, store, queue)
        url = _url(listener, serving)
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            ws="none",
            lifespan="on",
            proxy_headers=False,
            http=BoundedHeads,
            timeout_graceful_shutdown=_GRACE_SECONDS,
            timeout_keep_alive=_IDLE_SECONDS,
            backlog=_WAITING,
        )

        def tell() -> None:
            _write_secret(settings.home / "client.json", f'{{"url": "{url}", "token": "{token}"}}\n')
            ready(url, token)

        # The server raises the signal that ended it once more; the queue is yet to be ended then.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_given: None)
        if with_queue:
            queue.start()
        try:
            _Server(config, app, tell).run(sockets=[listener])
        finally:
            with suppress(OSError):
                (settings.home / "client.json").unlink()
            if with_queue:
                queue.stop()


def local_token(home: Path, store: Store) -> str:
    """The key of whoever owns the state folder: made once, and kept there for their eyes alone."""
    path = home / "token"
    with suppress(OSError):
        token = path.read_text(encoding="ascii").strip()
        known = store.keys.by_hash(hashed(token))
        if known is not None and known.revoked is None:
            return token
    token = new_key()
    store.keys.create("local", ["admin", "read", "run"], hashed(token))
    _write_secret(path, token + "\n")
    return token


def _write_secret(path: Path, text: str) -> None:
    def write(part: Path) -> None:
        part.unlink(missing_ok=True)
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)

    write_whole(path, write)


def _listening(serving: Serving) -> socket.socket:
    family = socket.AF_INET6 if ":" in serving.host else socket.AF_INET
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Connections inherit it. Else the body of an answer waits for the client to confirm its head: 40 ms.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind((serving.host, serving.port))
        listener.listen(_WAITING)
    except OSError as error:
        listener.close()
        raise UsageError(
            _("{host}:{port} cannot be listened on: {why}.").format(
                host=serving.host, port=serving.port, why=error.strerror or error
            ),
            _("Choose another one with --port, or 0 for any."),
        ) from None
    return listener


def _url(listener: socket.socket, serving: Serving) -> str:
    host, port = listener.getsockname()[:2]
    shown = serving.names[0] if serving.names and serving.host not in LOOPBACK else host
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"


def _log() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(Discreet("%(asctime)s %(levelname)s %(name)s %(message)s"))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    for name in ("caudal", "caudal.access"):
        logging.getLogger(name).setLevel(logging.INFO)

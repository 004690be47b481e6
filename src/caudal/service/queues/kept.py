"""A process that is started again when it ends: how a server keeps its worker, and a worker its Celery."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress

_LOOK_SECONDS = 0.2
_FIRST_WAIT_SECONDS = 0.2
_MOST_WAIT_SECONDS = 10.0
_SETTLED_SECONDS = 10.0
_END_SECONDS = 45.0


class KeptProcess:
    """One process, in a session of its own, so that Ctrl-C on a terminal reaches only who started it.

    A thread of its own starts it and waits for it; one that ends at once again and again is started ever
    less often.
    """

    def __init__(self, command: Sequence[str], env: Mapping[str, str]) -> None:
        self._command, self._env = list(command), dict(env)
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        self.failures = 0
        """How often it ended by itself shortly after it was started, in a row."""

    @property
    def pid(self) -> int | None:
        """Its number while it runs."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def start(self) -> None:
        """Start it, and again whenever it ends."""
        assert self._thread is None, "it is started already"
        self._thread = threading.Thread(target=self._keep, name="caudal-keeps-process", daemon=True)
        self._thread.start()

    def ask_to_end(self) -> None:
        """Ask it to end, and start it no more; asked twice, Celery would not wait for what it does."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.terminate()

    def stop(self, seconds: float = _END_SECONDS) -> None:
        """Ask it to end, and wait; after `seconds` it is killed."""
        self.ask_to_end()
        process = self._process
        if process is None:
            return
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _keep(self) -> None:
        while not self._stopping.is_set():
            self._process = subprocess.Popen(
                self._command,
                env=os.environ | self._env,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
            lived = 0.0
            while self._process.poll() is None:
                if self._stopping.wait(_LOOK_SECONDS):
                    return
                lived += _LOOK_SECONDS
            self.failures = 0 if lived >= _SETTLED_SECONDS else self.failures + 1
            self._stopping.wait(min(_MOST_WAIT_SECONDS, _FIRST_WAIT_SECONDS * 2 ** min(self.failures, 10)))

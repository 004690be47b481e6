"""A child that looks at files which may be hostile: what it takes, and how long, is limited, and it may die.

Requests and answers are lines of JSON; bytes follow an answer that says so. The child's half is
`sandbox_child.py`.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import time
from contextlib import suppress
from typing import Any

from caudal.core.errors import CaudalError, DataError
from caudal.core.messages import _
from caudal.core.pipes import piece_of
from caudal.service.problems import Refused
from caudal.service.serving import Limits

_LONGEST_ANSWER = 64 * 2**20
_START_SECONDS = 20.0


class _Child:
    def __init__(self, limits: Limits) -> None:
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "caudal.service.sandbox_child",
                limits.model_dump_json(),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
        self._held = b""

    def ask(self, request: dict[str, Any], seconds: float) -> tuple[dict[str, Any], bytes]:
        """Its answer.

        Raises:
            TimeoutError: none came in time.
            EOFError: it ended.
        """
        until = time.monotonic() + seconds
        assert self._process.stdin is not None
        try:
            asked = json.dumps({**request, "seconds": seconds})
            self._process.stdin.write(asked.encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise EOFError from None
        while b"\n" not in self._held:
            self._held += piece_of(self._process.stdout, until)
        line, _end, self._held = self._held.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        count = int(answer.pop("bytes", 0))
        if count > _LONGEST_ANSWER:
            raise EOFError
        while len(self._held) < count:
            self._held += piece_of(self._process.stdout, until)
        body, self._held = self._held[:count], self._held[count:]
        return answer, body

    def is_alive(self) -> bool:
        """Whether it is there to be asked."""
        return self._process.poll() is None

    def end(self) -> None:
        """Kill it; it holds nothing that anybody needs."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()


class Sandbox:
    """Up to `children` of them, started when they are needed. Thread-safe."""

    def __init__(self, limits: Limits, children: int = 2) -> None:
        self._limits = limits
        self._idle: queue.LifoQueue[_Child | None] = queue.LifoQueue()
        self._children = children
        for _number in range(children):
            self._idle.put(None)
        self._closed = False

    def ask(self, what: str, seconds: float | None = None, **given: Any) -> tuple[dict[str, Any], bytes]:
        """Have `what` of `sandbox_child.py` done with what is `given`.

        Raises:
            Refused: 503 if all are busy for too long, 422 if it took too long or too much, 404 for a tile
                that is outside.
            DataError: the file cannot be read, or is not one that is taken.
        """
        most = seconds or self._limits.tile_seconds
        try:
            child = self._idle.get(timeout=most)
        except queue.Empty:
            raise Refused(
                503, "busy", _("Too many pictures are being drawn."), _("Ask again."), {"Retry-After": "2"}
            ) from None
        try:
            answer, body, child = self._asked(child, {"what": what, "given": given}, most)
        except (TimeoutError, EOFError):
            child = None
            raise Refused(
                422,
                "too_costly",
                _("The file takes more time or memory than is allowed."),
                _("Write it with overviews and small blocks, as a COG is."),
            ) from None
        except BaseException:
            child = None
            raise
        finally:
            self._idle.put(child)
        if "error" in answer:
            raise _error(answer["error"])
        return answer, body

    def _asked(
        self, child: _Child | None, request: dict[str, Any], most: float
    ) -> tuple[dict[str, Any], bytes, _Child]:
        """The answer, and who gave it. One that was idle may have been ended by others: then a new one."""
        if self._closed:
            raise Refused(503, "stopping", _("The server is stopping."), "", {"Retry-After": "5"})
        if child is not None and not child.is_alive():
            child.end()
            child = None
        seconds = most if child is not None else most + _START_SECONDS
        child = child or _Child(self._limits)
        try:
            answer, body = child.ask(request, seconds)
        except BaseException:
            child.end()
            raise
        return answer, body, child

    def close(self) -> None:
        """End all of them; those at work end with their work."""
        self._closed = True
        for _number in range(self._children):
            with suppress(queue.Empty):
                child = self._idle.get(timeout=self._limits.tile_seconds)
                if child is not None:
                    child.end()
        for _number in range(self._children):
            self._idle.put(None)


def _error(said: dict[str, Any]) -> Exception:
    if said["code"] == "outside":
        return Refused(404, "outside", said["message"], said["hint"])
    if said["code"] in ("too_large", "codec", "format"):
        status = 415 if said["code"] != "too_large" else 413
        return Refused(status, said["code"], said["message"], said["hint"])
    if said["code"] == "too_costly":
        return Refused(422, "too_costly", said["message"], said["hint"])
    error: CaudalError = DataError(said["message"], said["hint"])
    return error

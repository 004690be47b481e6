"""Probes from a process that has loaded what a run loads: a fork of it answers seconds before a new child.

What is measured is the same. It is no child of the tests, or what it holds would count as a run's. Tests of
how a probe starts, ends and is ended ask real children.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socketserver import ForkingMixIn, StreamRequestHandler, UnixStreamServer
from typing import Any

from caudal.runs.probe import ProbeRequest

_ALIVE_FD = 0  # standard input: at its end, whoever asks is gone


@contextmanager
def warm_probes() -> Iterator[Any]:
    """A stand-in for `probe._run`."""
    with tempfile.TemporaryDirectory() as folder:
        path, root = f"{folder}/socket", Path(__file__).parents[1]
        words = [sys.executable, "-m", __name__, path]
        with subprocess.Popen(words, stdin=subprocess.PIPE, cwd=root) as starter:
            assert starter.wait() == 0
            yield lambda request: _ask(path, request)


def _ask(path: str, request: ProbeRequest) -> list[dict[str, Any]]:
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(path)
        with line.makefile("rw", encoding="utf-8") as file:
            asked = {"env": dict(os.environ), "cpus": sorted(os.sched_getaffinity(0))}
            print(json.dumps({"request": request.model_dump_json(), **asked}), file=file, flush=True)
            told = [json.loads(text) for text in file]
    assert not (told and "failed" in told[-1]), f"the probe failed:\n{told[-1]['failed']}"
    return told


class _Answer(StreamRequestHandler):
    """Runs in a fork of its own."""

    def handle(self) -> None:
        from caudal.runs import probe_child

        def say(what: dict[str, Any]) -> None:
            self.wfile.write(f"{json.dumps(what)}\n".encode())

        asked = json.loads(self.rfile.readline())
        os.environ.clear()
        os.environ.update(asked["env"])
        os.sched_setaffinity(0, asked["cpus"])
        probe_child._say = say
        try:
            probe_child.answer(ProbeRequest.model_validate_json(asked["request"]))
        except BaseException:
            say({"failed": traceback.format_exc()})


class _Server(ForkingMixIn, UnixStreamServer):
    def service_actions(self) -> None:
        super().service_actions()
        if select.select([_ALIVE_FD], [], [], 0)[0]:
            raise SystemExit


def main(path: str) -> None:
    """Load what a run loads, once the socket is there, and answer until nobody is left."""
    with _Server(path, _Answer) as server:
        if os.fork():
            os._exit(0)
        from caudal.runs.machine import settle

        settle()
        import rich.progress  # noqa: F401

        from caudal.runs import assemble, probe_child, probe_subject  # noqa: F401
        from caudal.runs.verbs import train  # noqa: F401

        server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])

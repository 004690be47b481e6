"""A spawned process that runs the function on samples in shared memory; nothing is copied or pickled but it.

It ends when its parent closes the pipe or dies.
"""

from __future__ import annotations

import contextlib
import mmap
import multiprocessing
import os
import pickle
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from typing import Any, cast

import numpy as np

from caudal.core.errors import UsageError, WorkerDied
from caudal.core.messages import _
from caudal.core.units import Bytes
from caudal.data.batches import Ragged
from caudal.data.sample_files.base import Array, Ints
from caudal.data.transform.function import Transform, apply
from caudal.memory.arena import Arena
from caudal.memory.meters import charged_bytes, descendants

_START_SECONDS = 60


@dataclass(frozen=True)
class Place:
    """Where an array lies: in which arena (0 in, 1 out), from which byte; `ends` for ragged fields."""

    arena: int
    offset: int
    shape: tuple[int, ...]
    dtype: str
    ends: Ints | None = None


class Worker:
    """The process, from the parent's side. For one thread at a time."""

    def __init__(self, transform: Transform) -> None:
        """Start it.

        Raises:
            UsageError: the function cannot be found by another process.
        """
        try:
            pickle.dumps(transform)
        except Exception as error:  # every kind of object has its own reason
            raise _not_movable(str(error)) from error
        known = set(descendants(os.getpid()))
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, transform), name="caudal-transform", daemon=True
        )
        try:
            self._process.start()
            theirs.close()
            ready = self._pipe.poll(_START_SECONDS) and self._pipe.recv()
        except (EOFError, OSError, RuntimeError) as error:
            raise _not_movable(_("it did not start")) from error
        if ready != "ready":
            raise _not_movable(_("it did not start"))
        self._arenas: list[Arena] = []
        # Beside the worker, the first start brings a process that tidies up after all of them.
        self._started = [pid for pid in descendants(os.getpid()) if pid not in known]

    @property
    def pid(self) -> int:
        """Its number."""
        return int(self._process.pid or 0)

    @property
    def charged(self) -> Bytes:
        """Bytes that were taken by starting it."""
        return Bytes(sum(charged_bytes(pid) for pid in self._started))

    def attach(self, arena_in: Arena, arena_out: Arena) -> None:
        """Let it see two shared arenas."""
        self._arenas = [arena_in, arena_out]
        self._pipe.send([int(arena.capacity) for arena in self._arenas])
        for arena in self._arenas:
            assert arena.fd is not None
            send_handle(self._pipe, arena.fd, self.pid)

    def place(self, arena: int, array: Array, ends: Ints | None = None) -> Place:
        """Where an array of an arena lies."""
        offset = array.ctypes.data - self._arenas[arena].address if array.nbytes else 0
        return Place(arena, offset, array.shape, array.dtype.str, ends)

    def run(
        self, inputs: Mapping[str, Place], outputs: Mapping[str, Place], samples: Ints, epoch: int
    ) -> None:
        """Transform the samples of a batch.

        Raises:
            Exception: what the function raised.
            WorkerDied: the process ended.
        """
        try:
            self._pipe.send((dict(inputs), dict(outputs), samples, epoch))
            error = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join(5)
            raise self._died() from None
        if error is not None:
            raise error

    def _died(self) -> WorkerDied:
        code = self._process.exitcode
        how = _("signal {number}").format(number=-code) if code is not None and code < 0 else f"{code}"
        return WorkerDied(
            _("The process that runs the transform ended by itself ({how}).").format(how=how),
            _("If the system killed it, give a smaller ram= or a transform that holds less."),
            exitcode=code,
        )

    def stop(self) -> None:
        """Break off what it does, from any thread; then `close` it."""
        self._process.kill()

    def close(self) -> None:
        """End it; safe to call twice."""
        self._pipe.close()
        self._process.join(5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def __del__(self) -> None:
        if hasattr(self, "_process"):
            with contextlib.suppress(OSError, ValueError, AssertionError):
                self._pipe.close()


def _not_movable(why: str) -> UsageError:
    return UsageError(
        _("The transform cannot run in a process of its own: {why}.").format(why=why.rstrip(".")),
        _("Define it at the top of a module (and guard a script with if __name__ == “__main__”)."),
    )


def _serve(pipe: Connection, transform: Transform) -> None:
    """The child's life."""
    pipe.send("ready")
    views: list[memoryview] = []
    while True:
        try:
            message = pipe.recv()
        except (EOFError, OSError):
            return
        if isinstance(message, list):
            views = [_map(recv_handle(pipe), size) for size in message]
            continue
        inputs, outputs, samples, epoch = message
        try:
            apply(transform, _open(views, inputs), _open(views, outputs), samples, epoch, 0, len(samples))
            error = None
        except BaseException as raised:  # whatever it is, the parent raises it
            error = _sendable(raised)
        pipe.send(error)


def _map(fd: int, size: int) -> memoryview:
    try:
        return memoryview(mmap.mmap(fd, size))
    finally:
        os.close(fd)


def _open(views: list[memoryview], places: Mapping[str, Place]) -> dict[str, Any]:
    opened: dict[str, Any] = {}
    for name, place in places.items():
        dtype, count = np.dtype(place.dtype), int(np.prod(place.shape))
        if count:
            array = np.frombuffer(views[place.arena], dtype, count, place.offset).reshape(place.shape)
        else:
            array = np.empty(place.shape, dtype)
        opened[name] = array if place.ends is None else Ragged(array, place.ends)
    return opened


def _sendable(error: BaseException) -> BaseException:
    """The error with its story as a note; as text if it cannot be sent."""
    story = "".join(traceback.format_exception(error))
    try:
        again = pickle.loads(pickle.dumps(error))
    except Exception:  # an exception class of the user's may do anything
        return RuntimeError(story)
    again.add_note(story)
    return cast(BaseException, again)

"""Calls that a pool makes, or the thread that needs them, whoever is first.

A thread that only waits leaves a processor idle while the pool's threads wake up, and the queue of a
`ThreadPoolExecutor` now and then gives two short calls to one thread while another sleeps. Here the one that
waits takes part.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Job(Generic[T]):
    """One call, made once."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call: Callable[[], T] | None = call
        self._lock = threading.Lock()
        self._found: list[T] = []
        self._error: BaseException | None = None

    def run(self) -> None:
        """Make the call, or wait for whoever makes it."""
        with self._lock:
            if self._call is None:
                return
            try:
                self._found.append(self._call())
            except BaseException as error:  # raised by `result`
                self._error = error
            self._call = None

    def result(self) -> T:
        """What the call gave, or raise what it raised; it is made now if nobody has."""
        self.run()
        if self._error is not None:
            raise self._error
        return self._found[0]


def share(pool: Executor | None, calls: Iterable[Callable[[], T]]) -> list[Job[T]]:
    """The calls as jobs that the pool, if there is one, begins with."""
    jobs = [Job(call) for call in calls]
    if pool is not None:
        for job in jobs:
            pool.submit(job.run)
    return jobs


def finish(jobs: Sequence[Job[Any]]) -> None:
    """Take part from the end, and come back when all are done; errors wait for `result`."""
    for job in reversed(jobs):
        job.run()

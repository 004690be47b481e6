"""Finds out whether a function holds Python's lock: then threads that run it keep everybody else waiting."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_ROUNDS = 5
_LEAST_SECONDS = 0.02
_CHEAP_SECONDS = 50e-6  # sending a sample to a process would cost as much
_SERIAL = 1.6  # two threads that take so many times as long as one do not run at the same time


def belongs_in_process(call: Callable[[], object], processors: int) -> bool:
    """Whether `call`, the work on one sample, is slow and holds the lock. Takes some tenths of a second.

    Measured: the same work in one thread, and in two at once. Never true on one processor, where nothing
    could be won.
    """
    call()  # what is made at the first call is not counted
    began = time.perf_counter()
    call()
    one = max(time.perf_counter() - began, 1e-9)
    if one < _CHEAP_SECONDS or processors < 2:
        return False
    count = max(1, round(_LEAST_SECONDS / one))
    # In turns, so that what disturbs the one disturbs the other.
    rounds = [(_seconds(call, count, 1), _seconds(call, count, 2)) for _round in range(_ROUNDS)]
    alone, both = min(one for one, _two in rounds), min(two for _one, two in rounds)
    return both > _SERIAL * alone


def _seconds(call: Callable[[], object], count: int, threads: int) -> float:
    def work() -> None:
        for _number in range(count):
            call()

    workers = [threading.Thread(target=work) for _number in range(threads)]
    began = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return time.perf_counter() - began

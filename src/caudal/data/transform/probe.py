"""Finds out whether a function holds Python's lock: then threads that run it keep everybody else waiting."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

_ROUNDS = 5
_LEAST_SECONDS = 0.02
_CHEAP_SECONDS = 50e-6  # sending a sample to a process would cost as much
_ALONE = 1.25  # processors that two threads keep busy at the most when only one of them can run at a time
_COMPUTES = 0.25  # a function that is on a processor for less of its time waits for something
_SERIAL = 1.6  # two threads that wait so many times as long as one do not wait at the same time


def belongs_in_process(call: Callable[[], object], processors: int) -> bool:
    """Whether `call`, the work on one sample, is slow and holds the lock. Takes some tenths of a second.

    Of a function that computes, measured is how many processors two threads keep busy with it: threads that
    take turns at a lock keep one busy, whatever else the machine does meanwhile, so that the most of several
    rounds is right where a comparison of times is not. Of one that waits, the times are compared. Never true
    on one processor, where nothing could be won.
    """
    call()  # what is made at the first call is not counted
    began = time.perf_counter()
    call()
    one = max(time.perf_counter() - began, 1e-9)
    if one < _CHEAP_SECONDS or processors < 2:
        return False
    count = max(1, round(_LEAST_SECONDS / one))
    # In turns, so that what disturbs the one disturbs the other.
    rounds = [(_measured(call, count, 1), _measured(call, count, 2)) for _round in range(_ROUNDS)]
    if max(alone.busy for alone, _both in rounds) > _COMPUTES:
        return max(both.busy for _alone, both in rounds) < _ALONE
    alone, both = (min(pair[which].seconds for pair in rounds) for which in (0, 1))
    return both > _SERIAL * alone


class _Measured(NamedTuple):
    seconds: float
    busy: float
    """Processors that were kept busy."""


def _measured(call: Callable[[], object], count: int, threads: int) -> _Measured:
    used = [0.0] * threads

    def work(number: int) -> None:
        began = time.thread_time()
        for _call in range(count):
            call()
        used[number] = time.thread_time() - began

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    began = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    seconds = time.perf_counter() - began
    return _Measured(seconds, sum(used) / seconds)

"""How a process is brought to its end: asked, asked again, killed with its group. By a monotonic clock."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress

from caudal.service.naming import Asked

_FINISHES_SECONDS = 3.0  # what work gets after its time limit, to come to the end of a step
_SHORT_SECONDS = 1.5  # a step that ends soon enough after the limit
_WRITES_SECONDS = 60.0  # and to write the checkpoint that it has begun
_STRONGER: dict[Asked, int] = {"timeout": 1, "stop": 1, "cancel": 2}


class Stopping:
    """Of one process. `ask` begins it; `step` has to be called a few times a second, and does the rest.

    A time limit asks by itself. Work that heeds its limit on its own gets more time then, because a second
    signal would end it without its checkpoint: `writing` says whether it writes one just now. Where a step
    takes long (`step_seconds` says how long), it is asked that long before its limit.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        grace_seconds: float,
        limit_seconds: float | None,
        writing: Callable[[], bool] | None,
        clock: Callable[[], float] = time.monotonic,
        step_seconds: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._process, self._grace, self._writing, self._clock = process, grace_seconds, writing, clock
        self._step_seconds = step_seconds
        self._deadline = None if limit_seconds is None else clock() + limit_seconds
        self._began: float | None = None
        self._sent = 0
        self.asked: Asked | None = None

    def ask(self, what: Asked) -> None:
        """Begin to end it, for `what`; a stronger wish comes before a weaker one."""
        if self.asked is None or _STRONGER[what] > _STRONGER[self.asked]:
            again = self.asked is not None and self._sent > 0
            self.asked, self._began, self._sent = what, self._clock(), 1 if again else 0

    def step(self) -> None:
        """Send what is due."""
        now = self._clock()
        if self._deadline is not None and self.asked is None:
            self._look_at_the_limit(now, self._deadline)
        if self._began is None or now < self._began:
            return
        waited = now - self._began
        grace = self._grace
        if self.asked == "timeout":
            grace = min(grace, _FINISHES_SECONDS)
            if self._writing is not None and waited < _WRITES_SECONDS and self._writing():
                return
        if self._sent == 0:
            self._signal(signal.SIGTERM, whole=False)
        elif self._sent == 1 and waited >= grace:
            self._signal(signal.SIGTERM, whole=True)
        elif self._sent >= 2 and waited >= grace * 1.5:
            self._signal(signal.SIGKILL, whole=True)

    def _look_at_the_limit(self, now: float, deadline: float) -> None:
        step = self._step_seconds()
        early = step if self._writing is not None and step > _SHORT_SECONDS else 0.0
        if now < deadline - early:
            return
        self.ask("timeout")
        self._began = deadline
        if early and now < deadline:
            self._signal(signal.SIGTERM, whole=False)
        elif self._writing is not None:
            self._sent = 1  # it has its own clock, and stops by it

    def _signal(self, number: int, whole: bool) -> None:
        self._sent += 1
        with suppress(ProcessLookupError):
            if whole:
                os.killpg(self._process.pid, number)
            else:
                self._process.send_signal(number)

"""How often: buckets that fill with time and are emptied by requests. Its clock is the monotonic one."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable


class Buckets:
    """One bucket of `size` for each name, refilled at `per_second`; the names used last are remembered."""

    def __init__(
        self,
        per_second: float,
        size: float,
        names: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rate, self._size, self._names, self._clock = per_second, size, names, clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, name: str) -> float:
        """Take one out: 0 if there was one, else the seconds until there is."""
        now = self._clock()
        left, then = self._left.pop(name, (self._size, now))
        left = min(self._size, left + (now - then) * self._rate)
        wait = 0.0 if left >= 1 else (1 - left) / self._rate
        self._left[name] = (left - 1 if not wait else left, now)
        while len(self._left) > self._names:
            self._left.popitem(last=False)
        return wait

"""Keeps a running job inside its budget: when the charge comes near it, does the cheapest thing that helps.

The rungs stand in order of price. One act at a time: then it waits until the act can be seen in the charge,
and says what it brought. When there has been room for a while, the last act is undone; one that had to be
done again is left done. It knows nothing of models or streams: a rung is two functions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from caudal.core.events import MemoryRelieved, Sink
from caudal.core.messages import _
from caudal.core.units import Bytes

NEAR, ROOM = 0.98, 0.85  # of the budget: above here something is done, below here it may be undone
SETTLE_SECONDS = 1.0  # until an act shows
PATIENCE_SECONDS = 15.0  # of room, before something is undone
_HORIZON_SECONDS = 0.3  # growth is drawn on for so long: three looks


def _nothing() -> bool:
    return False


@dataclass(frozen=True)
class Rung:
    """Something that lowers the charge. Both functions say whether they did anything.

    They are called from the watching thread, and must not wait. `undo` takes back one `act`.
    """

    name: str
    act: Callable[[], bool]
    undo: Callable[[], bool] = _nothing


@dataclass
class _Act:
    rung: Rung
    why: str
    before: Bytes
    at: float


class Governor:
    """Hears of the charge ten times a second, by being called with it.

    A charge swings with every step. What the plan foretold (`predicted`), and what was reached before, is no
    reason to act as long as it is inside the budget; what goes beyond both is drawn on as it grows.
    """

    def __init__(
        self,
        budget: Bytes,
        rungs: Sequence[Rung],
        tell: Sink,
        pool: str = "ram",
        clock: Callable[[], float] = time.monotonic,
        predicted: Bytes | None = None,
    ) -> None:
        self._budget, self._rungs, self._tell, self._pool, self._clock = budget, rungs, tell, pool, clock
        self._near = max(NEAR * budget, min(predicted or 0, budget))
        self._known = float(predicted or 0)  # growth up to here is nothing new
        self._done: list[Rung] = []  # acts that can be undone, the latest last
        self._last: _Act | None = None  # not yet told
        self._changed_at = self._tight_at = clock()
        self._undone: Rung | None = None
        self._final: set[str] = set()
        self._reading: tuple[float, Bytes] | None = None

    def __call__(self, charged: Bytes) -> None:
        """Take a reading, and act on it if it is time to."""
        now = self._clock()
        growth = self._growth(now, charged)
        if charged > ROOM * self._budget:
            self._tight_at = now
        if now - self._changed_at < SETTLE_SECONDS and self._last is not None:
            return
        self._report(charged)
        if charged + growth * _HORIZON_SECONDS > self._near:
            self._relieve(now, charged)
        elif now - max(self._tight_at, self._changed_at) > PATIENCE_SECONDS:
            self._restore(now, charged)

    def close(self, charged: Bytes) -> None:
        """Say what the last act brought, if it was not said yet."""
        self._report(charged)

    def _growth(self, now: float, charged: Bytes) -> float:
        """Bytes a second since the last reading, as far as they are beyond what is known."""
        before, self._reading = self._reading, (now, charged)
        beyond = charged - max(self._known, before[1]) if before else 0.0
        if beyond > 0:
            self._known = float(charged)
        return max(0.0, beyond) / (now - before[0]) if before and now > before[0] else 0.0

    def _relieve(self, now: float, charged: Bytes) -> None:
        share = charged / self._budget
        for rung in self._rungs:
            if rung.act():
                if rung is self._undone:
                    self._final.add(rung.name)
                self._done.append(rung)
                why = _("{share} of the budget are held").format(share=f"{share:.0%}")
                self._last, self._changed_at = _Act(rung, why, charged, now), now
                return

    def _restore(self, now: float, charged: Bytes) -> None:
        while self._done:
            rung = self._done.pop()
            if rung.name not in self._final and rung.undo():
                self._undone = rung
                name = Rung(_("{act}, taken back").format(act=rung.name), _nothing)
                self._last, self._changed_at = _Act(name, _("there is room again"), charged, now), now
                return

    def _report(self, charged: Bytes) -> None:
        last, self._last = self._last, None
        if last is not None:
            self._tell(MemoryRelieved(last.rung.name, last.why, self._pool, int(last.before), int(charged)))

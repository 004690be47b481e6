"""How many threads work: as few as keep the consumer from waiting, and never more than help.

All of them until the first batch is there. Then it climbs from one, by one while the consumer waits, takes
the step back when it brought nothing (the knee), and tries one less when nobody waits. Decided from what
happened over some batches; it changes speed and never the order.
"""

from __future__ import annotations

from dataclasses import dataclass, field

WINDOW_BATCHES = 8
_WAITS = 0.02  # share of the time from which on the consumer counts as waiting
_IDLE = 0.002
_HELPS = 1.03  # a thread more has to bring so much
_PATIENCE = 8  # windows before a step that failed is tried again; doubled each time


@dataclass
class Tuner:
    """`allowed` of `most` threads may work."""

    most: int
    allowed: int = field(default=0, init=False)
    _batches: int = 0
    _samples: int = 0
    _stall_seconds: float = 0.0
    _began: float = field(default=-1.0)
    _before: tuple[int, float] | None = None  # threads and samples/s before the step that is on trial
    _rest: int = 0
    _patience: int = _PATIENCE

    def __post_init__(self) -> None:
        self.allowed = self.most

    def tell(self, samples: int, stall_seconds: float, now: float) -> bool:
        """Hear of a batch that was handed out at the time `now` (seconds); whether `allowed` changed."""
        if self._began < 0:  # the first batch pays for the start
            self._began, self.allowed = now, 1
            return False
        self._batches += 1
        self._samples += samples
        self._stall_seconds += stall_seconds
        if self._batches < WINDOW_BATCHES:
            return False
        seconds = max(now - self._began, 1e-9)
        allowed = self._decide(self._samples / seconds, self._stall_seconds / seconds)
        changed, self.allowed = allowed != self.allowed, allowed
        self._began, self._batches, self._samples, self._stall_seconds = now, 0, 0, 0.0
        return changed

    def _decide(self, rate: float, stall: float) -> int:
        if self._before is not None:
            threads, rate_before = self._before
            self._before = None
            worse = rate < rate_before * _HELPS if self.allowed > threads else stall > _WAITS
            if worse:
                self._rest, self._patience = self._patience, 2 * self._patience
                return threads
        if self._rest:
            self._rest -= 1
            return self.allowed
        if stall > _WAITS and self.allowed < self.most:
            self._before = (self.allowed, rate)
            return self.allowed + 1
        if stall < _IDLE and self.allowed > 1:
            self._before = (self.allowed, rate)
            return self.allowed - 1
        return self.allowed

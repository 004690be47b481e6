"""How many threads work: as few as keep the consumer from waiting, and never more than help.

It begins with all: to find out that one is too few takes longer than a short epoch has, and while a disk is
cold each thread that does not read is lost. One less is tried when nobody waits, and, now and then, when the
consumer waits all the same; one more while that brings something (the knee). A step that was wrong is taken
back. Decided from what happened over some batches; it changes speed and never the order.
"""

from __future__ import annotations

from dataclasses import dataclass, field

WINDOW_BATCHES = 8
_WINDOW_SECONDS = 0.05  # small batches come in bursts: a window has to be longer than those
_WAITS = 0.02  # share of the time from which on the consumer counts as waiting
_IDLE = 0.002
_HELPS = 1.03  # a thread more has to bring so much
_PATIENCE, _MOST_PATIENCE = 8, 64  # windows before the first step, and after one that was wrong; then doubled


@dataclass
class Tuner:
    """`allowed` of `most` threads may work."""

    most: int
    allowed: int = field(default=0, init=False)
    _batches: int = 0
    _samples: int = 0
    _stall_seconds: float = 0.0
    _began: float = field(default=-1.0)
    _before: tuple[int, float, bool] | None = None  # what was before the step on trial; was it waited for?
    _direction: int = -1  # where to look for the knee
    _rest: int = _PATIENCE
    _patience: int = _PATIENCE

    def __post_init__(self) -> None:
        self.allowed = self.most

    def tell(self, samples: int, stall_seconds: float, now: float) -> bool:
        """Hear of a batch that was handed out at the time `now` (seconds); whether `allowed` changed."""
        if self._began < 0:  # the first batch pays for the start
            self._began = now
            return False
        self._batches += 1
        self._samples += samples
        self._stall_seconds += stall_seconds
        seconds = now - self._began
        if self._batches < WINDOW_BATCHES or seconds < _WINDOW_SECONDS:
            return False
        allowed = self._decide(self._samples / seconds, self._stall_seconds / seconds)
        changed, self.allowed = allowed != self.allowed, allowed
        self._began, self._batches, self._samples, self._stall_seconds = now, 0, 0, 0.0
        return changed

    def _decide(self, rate: float, stall: float) -> int:
        if self._before is not None:
            threads, rate_before, waited = self._before
            self._before = None
            least = rate_before * (_HELPS if self.allowed > threads else 1 / _HELPS)
            if rate < least if waited else stall > _WAITS:
                self._rest = self._patience
                self._patience = min(2 * self._patience, _MOST_PATIENCE)
                self._direction = -self._direction if waited else 1
                return threads
            if not waited:  # once somebody waits, they come back at once
                self._rest, self._direction = 0, 1
        waits = stall > _WAITS
        if self._rest and (waits or self._patience > _PATIENCE):
            self._rest -= 1
            return self.allowed
        step = self._step() if waits else -1 if stall < _IDLE and self.allowed > 1 else 0
        if step:
            self._before = (self.allowed, rate, waits)
        return self.allowed + step

    def _step(self) -> int:
        """The next step towards the knee; the other way at the end of the range."""
        if not 1 <= self.allowed + self._direction <= self.most:
            self._direction = -self._direction
        return self._direction if self.most > 1 else 0

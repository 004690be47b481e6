"""Whether a run is to end before its last step, and why."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from caudal.core.errors import CaudalError, Interrupted, TimeIsUp
from caudal.core.messages import _


class Stop:
    """Asked from outside through `event`, or from within for a reason. Safe to use from several threads."""

    def __init__(self, event: threading.Event | None = None) -> None:
        self._event = event or threading.Event()
        self._reason: CaudalError | None = None

    def ask(self, reason: CaudalError) -> bool:
        """End after the present step, with `reason` as the error; false where it is to end already."""
        if self._event.is_set():
            return False
        self._reason = reason
        self._event.set()
        return True

    def is_set(self) -> bool:
        """Whether to end."""
        return self._event.is_set()

    def error(self, step: int, steps: int) -> CaudalError:
        """What to raise, once the checkpoint of `step` of `steps` is on disk."""
        return self._reason or Interrupted(
            _("Stopped at step {step} of {steps}.").format(step=step, steps=steps),
            _("Run the same command again to go on from there."),
            step=step,
        )

    @contextmanager
    def after(self, seconds: float | None) -> Iterator[None]:
        """Ask for it when `seconds` are over and the `with` is not; `None`: never."""
        if seconds is None:
            yield
            return
        timer = threading.Timer(seconds, lambda: self.ask(_time_is_up()))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


def _time_is_up() -> TimeIsUp:
    return TimeIsUp(
        _("The time limit was reached before the last step."),
        _("Run the same command again to go on from the checkpoint."),
    )

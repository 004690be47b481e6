"""What a verb that learns nothing tells on its way: that it begins, how far it is, what it holds, its end.

It watches the memory meanwhile. A training has its `account`. Does not know where the events go.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence, Sized
from types import TracebackType
from typing import TypeVar

from caudal.core.errors import CaudalError, Interrupted
from caudal.core.events import (
    Event,
    Events,
    MemoryRead,
    PartDone,
    RunEnded,
    RunStarted,
    Scanned,
    Sink,
    TileDone,
)
from caudal.core.units import Bytes
from caudal.memory.meters import Watch
from caudal.runs.result import Result

Members = TypeVar("Members", bound=Sized)
Found = TypeVar("Found")


class Telling:
    """Of one call of a verb. Its work is done in a `with`; what ends that early is told, too."""

    def __init__(self, verb: str, listeners: Sequence[Sink] = ()) -> None:
        self._verb, self._events = verb, Events(*listeners)
        self._began = time.monotonic()
        self._watch = Watch(listen=self._memory if listeners else None)

    @property
    def peak(self) -> Bytes:
        """The most charged bytes so far."""
        return self._watch.peak

    @property
    def seconds(self) -> float:
        """Since it was made."""
        return time.monotonic() - self._began

    def __call__(self, event: Event) -> None:
        """Tell what somebody else noticed."""
        self._events(event)

    @property
    def peaks(self) -> dict[str, int]:
        """The most bytes so far, by pool."""
        return {"ram": int(self.peak), "vram": _on_card(peak=True) or 0}

    def started(
        self,
        task: str,
        device: str,
        total: int,
        budget: Bytes,
        predicted: Bytes | None,
        card: tuple[Bytes | None, Bytes] = (None, Bytes(0)),
    ) -> None:
        """Tell that the work itself begins: so many tiles or parts, in so many bytes.

        `card` are the budget and the prediction of the device.
        """
        promised = {} if predicted is None else {"ram": int(predicted), "vram": int(card[1])}
        granted = {"ram": int(budget), "vram": int(card[0] or 0)}
        self._events(RunStarted(task, device, 0, total, promised, granted, self._verb))

    def scanned(self, done: int, total: int) -> None:
        """Tell how far looking at the data is."""
        self._events(Scanned(done, total))

    def part(self, done: int, total: int) -> None:
        """Tell how many samples or images are done."""
        self._events(PartDone(done, total))

    def tile(self, done: int, total: int) -> None:
        """Tell how many tiles are done."""
        self._events(TileDone(done, total))

    def counted(self, parts: Iterable[tuple[Members, Found]], total: int) -> Iterator[tuple[Members, Found]]:
        """The same pieces; once each is dealt with, its members are told as done."""
        done = 0
        for members, piece in parts:
            yield members, piece
            done += len(members)
            self.part(done, total)

    def ended(self, result: Result) -> Result:
        """Tell that it ended well; the result."""
        peak, metrics = result.peak_bytes or {}, result.metrics or {}
        seconds = result.seconds or self.seconds
        self._events(RunEnded("succeeded", seconds, result.samples_per_second, None, peak, metrics))
        return result

    def __enter__(self) -> Telling:
        self._watch.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watch.__exit__()
        if error is not None:
            stopped = isinstance(error, Interrupted | KeyboardInterrupt)
            code = error.code if isinstance(error, CaudalError) else CaudalError.code
            outcome, reason = ("interrupted", Interrupted.code) if stopped else ("failed", code)
            self._events(RunEnded(outcome, self.seconds, None, None, self.peaks, {}, str(error), reason))

    def _memory(self, charged: Bytes) -> None:
        self._events(MemoryRead(int(charged), _on_card()))


def _on_card(peak: bool = False) -> int | None:
    """What is held on the device, or was at the most.

    Who has not loaded torch holds nothing there, and is not to load it for being asked.
    """
    from caudal.memory import vram

    if "torch" not in sys.modules:
        return None
    return vram.peak() if peak else vram.charged()

"""What of a set turned out to be unreadable: gathered once for all streams of it, whoever met it first.

It reads nothing, and decides nothing: what becomes of a broken sample is `quarantine.py`'s.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePath

from caudal.core.events import Event, SampleBroken
from caudal.core.messages import _

_MOST_NAMED = 3


@dataclass(frozen=True, slots=True)
class Broken:
    """Samples `first` … `last` - 1 of `file` (numbers in the set), and why they cannot be read.

    None (both 0) for a file that is not in the set, because not even its header can be read.
    """

    file: str
    first: int
    last: int
    reason: str

    @property
    def event(self) -> SampleBroken:
        """The same as an event; a file that is not in the set would have held one sample."""
        return SampleBroken(self.file, self.first, max(1, self.last - self.first), self.reason)


class BrokenSamples:
    """The list of a set; safe from several threads. Each is told once, to whoever listens, early or late."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, int, int], Broken] = {}
        self._sinks: list[Callable[[Event], None]] = []
        self._lock = threading.Lock()

    def note(self, one: Broken) -> None:
        """Put on the list what is not there yet."""
        with self._lock:
            if self._found.setdefault((one.file, one.first, one.last), one) is not one:
                return
            sinks = list(self._sinks)
        for sink in sinks:
            sink(one.event)

    def listen(self, sink: Callable[[Event], None]) -> None:
        """Tell `sink` what is on the list, and what will be."""
        with self._lock:
            self._sinks.append(sink)
            known = list(self._found.values())
        for one in known:
            sink(one.event)

    def words(self) -> tuple[str, ...]:
        """A sentence with their number and the first of them; none where all could be read."""
        with self._lock:
            found = [one for one in self._found.values() if one.last]
        return told([one.event for one in found])


def told(events: list[SampleBroken]) -> tuple[str, ...]:
    """A sentence on samples that could not be read; none where there are none."""
    if not events:
        return ()
    names = list(dict.fromkeys(PurePath(one.file).name for one in events))
    more = " …" if len(names) > _MOST_NAMED else ""
    sentence = _("{count} samples cannot be read and count nowhere, those of {files}: {why}")
    files = ", ".join(names[:_MOST_NAMED]) + more
    return (sentence.format(count=sum(one.count for one in events), files=files, why=events[0].reason),)

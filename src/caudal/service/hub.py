"""Wakes those who wait for events: one look at the store for all of them, twice a second.

Keeps the last events in memory, so that many streams cost as much as one. What is not kept is asked of the
store. Each reader has its own place, so that a slow one loses nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from weakref import WeakValueDictionary

from anyio.to_thread import run_sync

from caudal.core.errors import CaudalError
from caudal.service.places import Veil
from caudal.service.records import StoredEvent
from caudal.service.states import ENDED
from caudal.service.store import Store
from caudal.service.views import EventView

_LOG = logging.getLogger("caudal.service")
_PAUSE_SECONDS = 0.5
_KEPT = 2000
_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Frame:
    """An event as it goes over the wire: made once, sent to many."""

    id: int
    job_id: str
    ends: bool
    data: bytes


class Hub:
    """The last events of all jobs."""

    def __init__(
        self,
        store: Store,
        veil: Veil,
        heard: Callable[[str], None] = lambda _job_id: None,
        pause_seconds: float = _PAUSE_SECONDS,
    ) -> None:
        """`heard` is told of every job of which there is news."""
        self._store, self._veil, self._heard, self._pause = store, veil, heard, pause_seconds
        self._recent: deque[Frame] = deque()
        self._since = 0
        """All after this number that are known are in `_recent`."""
        self._last = 0
        self._waited: WeakValueDictionary[str | None, asyncio.Event] = WeakValueDictionary()
        """For news of a job, or of any, as long as somebody waits; nobody is woken for another's."""
        self._task: asyncio.Task[None] | None = None
        self.stopping = asyncio.Event()

    async def start(self) -> None:
        """Begin with what comes from now on."""
        with suppress(CaudalError):
            self._last = self._since = await run_sync(self._store.events.last_id)
        self._task = asyncio.create_task(self._look())

    def _wake(self, job_ids: Iterable[str | None]) -> None:
        for job_id in job_ids:
            if (waited := self._waited.pop(job_id, None)) is not None:
                waited.set()

    async def stop(self) -> None:
        """Have all streams end."""
        self.stopping.set()
        self._wake(list(self._waited))
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def after(self, last_id: int, job_id: str | None) -> tuple[list[Frame], int]:
        """What came after `last_id`, and the number up to which that is all."""
        while last_id < (since := self._since):  # what the store is asked for holds at least all up to there
            found = await run_sync(self._read, last_id, job_id)
            if len(found) == _AT_ONCE:
                return found, found[-1].id
            last_id = max(last_id, since, found[-1].id if found else 0)
            if found:
                return found, last_id
        later: list[Frame] = []
        for frame in reversed(self._recent):
            if frame.id <= last_id:
                break
            if job_id is None or frame.job_id == job_id:
                later.append(frame)
        return later[::-1], max(last_id, self._last)

    async def news(self, seconds: float, job_id: str | None = None) -> None:
        """Wait until there may be something new of a job, or of any; at most so long."""
        if self.stopping.is_set():
            return
        waited = self._waited.setdefault(job_id, asyncio.Event())
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await waited.wait()

    def _read(self, last_id: int, job_id: str | None) -> list[Frame]:
        return [self._frame(event) for event in self._store.events.after(last_id, job_id, _AT_ONCE)]

    def _frame(self, event: StoredEvent) -> Frame:
        text = EventView.of(event, self._veil).model_dump_json()
        data = f"id: {event.id}\nevent: {event.kind}\ndata: {text}\n\n".encode()
        ends = event.kind == "job_state" and event.body.get("state") in ENDED
        return Frame(event.id, event.job_id, ends, data)

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(self._pause)
            try:
                if await run_sync(self._store.events.last_id) <= self._last:
                    continue
                found = await run_sync(self._read, self._last, None)
            except CaudalError as error:
                _LOG.warning("events cannot be read: %s", error.code)
                continue
            if not found:
                continue
            told = {frame.job_id for frame in found}
            for job_id in told:
                self._heard(job_id)
            self._recent.extend(found)
            while len(self._recent) > _KEPT:
                self._since = self._recent.popleft().id
            self._last = found[-1].id
            self._wake({*told, None})

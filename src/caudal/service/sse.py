"""Events as a stream (server-sent events). Whoever comes back names the last id, and misses nothing."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from anyio.to_thread import run_sync

from caudal.core.errors import CaudalError
from caudal.core.messages import _
from caudal.service.context import Context
from caudal.service.problems import Refused
from caudal.service.states import ENDED

_QUIET_SECONDS = 15.0
_AGAIN = b"retry: 2000\n\n"
_STILL_HERE = b": still here\n\n"
_END = b"event: end\ndata: {}\n\n"
MEDIA_TYPE = "text/event-stream"


def place_of(header: str | None, query: int | None) -> int:
    """Behind which event a stream begins: `Last-Event-ID` as browsers send it, else what was asked for.

    Raises:
        Refused: 422, it is no id.
    """
    if header is None or header == "":
        return query or 0
    if not (header.isascii() and header.isdigit() and len(header) <= 18):
        raise Refused(
            422, "wrong_request", _("Last-Event-ID is no id of an event."), _("Send one as it came, or none.")
        )
    return int(header)


async def has_ended(context: Context, job_id: str, last_id: int) -> bool:
    """Whether a job has ended and everything of it was seen."""
    job = await run_sync(context.store.jobs.get, job_id)
    return job.state in ENDED and job.seen_event <= last_id


async def stream(context: Context, job_id: str | None, last_id: int) -> AsyncIterator[bytes]:
    """The events of a job, or of all; ends with the job, with the server, or after its longest time."""
    hub, until = context.hub, time.monotonic() + context.serving.limits.stream_seconds
    with _counted(context):
        yield _AGAIN
        quiet = time.monotonic()
        while not hub.stopping.is_set():
            try:
                frames, last_id = await hub.after(last_id, job_id)
            except CaudalError:  # the store is away; the client comes back
                return
            if frames:
                yield b"".join(frame.data for frame in frames)
                quiet = time.monotonic()
            if frames and frames[-1].ends and job_id and await _ended(context, job_id, last_id):
                yield _END
                return
            left = until - time.monotonic()
            if left <= 0:
                return
            if not frames:
                await hub.news(min(left, _QUIET_SECONDS), job_id)
            if time.monotonic() - quiet >= _QUIET_SECONDS:
                yield _STILL_HERE
                quiet = time.monotonic()


@contextmanager
def _counted(context: Context) -> Iterator[None]:
    context.open_streams += 1
    context.metrics.streams.set(context.open_streams)
    try:
        yield
    finally:
        context.open_streams -= 1
        context.metrics.streams.set(context.open_streams)


async def _ended(context: Context, job_id: str, last_id: int) -> bool:
    try:
        return await has_ended(context, job_id, last_id)
    except CaudalError:
        return False

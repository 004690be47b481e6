"""The client that is awaited: the same methods as the other one."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from caudal.client.calls import (
    AGAIN,
    FIRST_PAUSE_SECONDS,
    POLL_SECONDS,
    TRIES,
    Base,
    Call,
    Calls,
    as_error,
    part,
)
from caudal.client.records import Dataset, Event, Job, Page, Plan, Project, Sent, Status, T

if TYPE_CHECKING:
    import httpx


class AsyncClient(Base):
    """The same methods, to be awaited; lists and events by `async for`. Use `async with`."""

    def __init__(self, url: str | None = None, token: str | None = None) -> None:
        super().__init__(url, token)
        import httpx

        self._http = httpx.AsyncClient(**self._settings())

    async def _do(self, call: Call[T], key: str | None = None) -> T:
        import httpx

        name, pause = key or uuid.uuid4().hex, FIRST_PAUSE_SECONDS
        for left in reversed(range(TRIES)):
            again = left and call.may_be_repeated
            try:
                answer = await self._send(call, name)
            except httpx.TransportError as error:
                if not again:
                    raise self._lost(error) from error
            else:
                if answer.is_success:
                    return call.kind.model_validate_json(answer.content)
                if not (again and answer.status_code in AGAIN):
                    raise as_error(answer.status_code, answer.text)
            await asyncio.sleep(pause)
            pause *= 2
        raise AssertionError("unreachable")

    async def _send(self, call: Call[Any], name: str) -> httpx.Response:
        given = call.given(name)
        if call.file is not None:
            given["content"] = _pieces(call.file)
        return await self._http.request(call.method, call.path, **given)

    async def job(self, job_id: str) -> Job:
        """One job."""
        return await self._do(Calls.job(job_id))

    async def jobs(self, *states: str, project: str | None = None) -> AsyncIterator[Job]:
        """All jobs, the newest first; asked for a page at a time."""
        cursor: str | None = ""
        while cursor is not None:
            page = await self._do(Calls.jobs(states, project, 200, cursor))
            for job in page.items:
                yield job
            cursor = page.next

    async def submit(self, order: Mapping[str, Any], key: str | None = None) -> Job:
        """Put a job in line; `order` as the API takes it. The same `key` again is the same job."""
        return await self._do(Calls.submit(order), key)

    async def cancel(self, job_id: str) -> Job:
        """Ask a job to end."""
        return await self._do(Calls.cancel(job_id))

    async def retry(self, job_id: str, smaller: bool = False) -> Job:
        """Try a job again that failed or was cancelled; `smaller`: on a plan that holds less."""
        return await self._do(Calls.retry(job_id, smaller))

    async def status(self, job_id: str) -> Status:
        """How a job stands."""
        return await self._do(Calls.status(job_id))

    async def plan(self, order: Mapping[str, Any]) -> Plan:
        """What a training would hold."""
        return await self._do(Calls.plan(order))

    async def create_project(self, name: str) -> Project:
        """A new project."""
        return await self._do(Calls.project(name))

    async def create_dataset(
        self, name: str, place: str | None = None, project: str | None = None
    ) -> Dataset:
        """Register a place of the server's roots, or make an empty data set to send files to."""
        return await self._do(Calls.dataset(name, place, project))

    async def send(self, dataset_id: str, file: str | Path, name: str | None = None) -> Sent:
        """Send a file into a data set."""
        path = Path(file)
        return await self._do(Calls.send(dataset_id, name or path.name, path))

    async def wait(self, job_id: str, poll_seconds: float = POLL_SECONDS) -> Job:
        """A job once it has ended."""
        while not (job := await self.job(job_id)).has_ended:
            await asyncio.sleep(poll_seconds)
        return job

    async def events(self, job_id: str, after: int = 0) -> AsyncIterator[Event]:
        """The events of a job until it ends, each once."""
        last = after
        while True:
            page = await self._do(
                Call("GET", f"/jobs/{part(job_id)}/events", Page[Event], {"after": last, "limit": 200})
            )
            for event in page.items:
                last = event.id
                yield event
            if not page.items:
                job = await self.job(job_id)
                if job.has_ended and job.seen_event <= last:
                    return
                await asyncio.sleep(POLL_SECONDS)

    async def close(self) -> None:
        """Let go of the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


async def _pieces(file: Path) -> AsyncIterator[bytes]:
    with file.open("rb") as opened:
        while piece := await asyncio.to_thread(opened.read, 2**18):
            yield piece

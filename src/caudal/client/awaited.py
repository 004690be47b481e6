"""The client that is awaited: the same methods as the other one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from caudal.client.calls import (
    POLL_SECONDS,
    Base,
    Call,
    Calls,
    Tries,
    as_error,
    log_of,
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

        tries = Tries(call, key)
        while True:
            try:
                answer = await self._send(call, tries.key)
            except httpx.TransportError as error:
                tries.lost(self._lost(error), error)
            else:
                if (told := tries.heard(answer.status_code, answer.content)) is not None:
                    return told
            await asyncio.sleep(tries.pause())

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

    async def datasets(self, place: str | None = None) -> AsyncIterator[Dataset]:
        """All data sets, the oldest first; with `place`, those of that folder or file alone."""
        cursor: str | None = ""
        while cursor is not None:
            page = await self._do(Calls.datasets(place, 200, cursor))
            for dataset in page.items:
                yield dataset
            cursor = page.next

    async def log(self, job_id: str, start: int = 0) -> bytes:
        """What a job wrote to its log from byte `start` on; empty if there is nothing yet."""
        import httpx

        path, headers = Calls.log(job_id, start)
        try:
            answer = await self._http.get(path, headers=headers)
        except httpx.TransportError as error:
            raise self._lost(error) from error
        text = log_of(answer.status_code, answer.content, start)
        if text is None:
            await self.job(job_id)  # raises where there is no such job
        return text or b""

    async def download(self, run_id: str, name: str, out: str | Path) -> Path:
        """A file of a run, written to `out`."""
        target = Path(out)
        async with self._http.stream("GET", Calls.download(run_id, name)) as answer:
            if not answer.is_success:
                raise as_error(answer.status_code, (await answer.aread()).decode("utf-8", "replace"))
            with target.open("wb") as file:
                async for piece in answer.aiter_bytes():
                    file.write(piece)
        return target

    async def send(self, dataset_id: str, file: str | Path, name: str | None = None) -> Sent:
        """Send a file into a data set."""
        path = Path(file)
        return await self._do(Calls.send(dataset_id, name or path.name, path))

    async def wait(self, job_id: str, seconds: float | None = None) -> Job:
        """A job once it has ended, or after so many seconds as it is then."""
        until = None if seconds is None else time.monotonic() + seconds
        while True:
            job = await self.job(job_id)
            left = POLL_SECONDS if until is None else until - time.monotonic()
            if job.has_ended or left <= 0:
                return job
            await asyncio.sleep(min(POLL_SECONDS, left))

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

"""The client that waits."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from caudal.client.calls import (
    AGAIN,
    FIRST_PAUSE_SECONDS,
    POLL_SECONDS,
    SECONDS,
    Base,
    Call,
    Calls,
    Tries,
    as_error,
    log_of,
    part,
)
from caudal.client.records import Dataset, Event, Job, Plan, Project, Sent, Status, T

if TYPE_CHECKING:
    import httpx


class Client(Base):
    """Asks, and waits for the answer. Errors are those of `caudal.core.errors`; close it, or use `with`."""

    def __init__(self, url: str | None = None, token: str | None = None) -> None:
        super().__init__(url, token)
        import httpx

        self._http = httpx.Client(**self._settings())

    def _do(self, call: Call[T], key: str | None = None) -> T:
        import httpx

        tries = Tries(call, key)
        while True:
            try:
                answer = self._send(call, tries.key)
            except httpx.TransportError as error:
                tries.lost(self._lost(error), error)
            else:
                if (told := tries.heard(answer.status_code, answer.content)) is not None:
                    return told
            time.sleep(tries.pause())

    def _send(self, call: Call[Any], name: str) -> httpx.Response:
        given = call.given(name)
        if call.file is None:
            return self._http.request(call.method, call.path, **given)
        with call.file.open("rb") as file:
            return self._http.request(call.method, call.path, content=file, **given)

    def job(self, job_id: str) -> Job:
        """One job."""
        return self._do(Calls.job(job_id))

    def jobs(self, *states: str, project: str | None = None) -> Iterator[Job]:
        """All jobs, the newest first; asked for a page at a time."""
        cursor: str | None = ""
        while cursor is not None:
            page = self._do(Calls.jobs(states, project, 200, cursor))
            yield from page.items
            cursor = page.next

    def submit(self, order: Mapping[str, Any], key: str | None = None) -> Job:
        """Put a job in line; `order` as the API takes it. The same `key` again is the same job."""
        return self._do(Calls.submit(order), key)

    def cancel(self, job_id: str) -> Job:
        """Ask a job to end."""
        return self._do(Calls.cancel(job_id))

    def retry(self, job_id: str, smaller: bool = False) -> Job:
        """Try a job again that failed or was cancelled; `smaller`: on a plan that holds less."""
        return self._do(Calls.retry(job_id, smaller))

    def status(self, job_id: str) -> Status:
        """How a job stands."""
        return self._do(Calls.status(job_id))

    def plan(self, order: Mapping[str, Any]) -> Plan:
        """What a training would hold."""
        return self._do(Calls.plan(order))

    def create_project(self, name: str) -> Project:
        """A new project."""
        return self._do(Calls.project(name))

    def create_dataset(self, name: str, place: str | None = None, project: str | None = None) -> Dataset:
        """Register a place of the server's roots, or make an empty data set to send files to."""
        return self._do(Calls.dataset(name, place, project))

    def datasets(self, place: str | None = None) -> Iterator[Dataset]:
        """All data sets, the oldest first; with `place`, those of that folder or file alone."""
        cursor: str | None = ""
        while cursor is not None:
            page = self._do(Calls.datasets(place, 200, cursor))
            yield from page.items
            cursor = page.next

    def send(self, dataset_id: str, file: str | Path, name: str | None = None) -> Sent:
        """Send a file into a data set."""
        path = Path(file)
        return self._do(Calls.send(dataset_id, name or path.name, path))

    def log(self, job_id: str, start: int = 0) -> bytes:
        """What a job wrote to its log from byte `start` on; empty if there is nothing yet."""
        answer = self._raw(*Calls.log(job_id, start))
        text = log_of(answer.status_code, answer.content, start)
        if text is None:
            self.job(job_id)  # raises where there is no such job
        return text or b""

    def _raw(self, path: str, headers: dict[str, str]) -> httpx.Response:
        import httpx

        try:
            return self._http.get(path, headers=headers)
        except httpx.TransportError as error:
            raise self._lost(error) from error

    def download(self, run_id: str, name: str, out: str | Path) -> Path:
        """A file of a run, written to `out`."""
        target = Path(out)
        with self._http.stream("GET", Calls.download(run_id, name)) as answer:
            if not answer.is_success:
                raise as_error(answer.status_code, answer.read().decode("utf-8", "replace"))
            with target.open("wb") as file:
                for piece in answer.iter_bytes():
                    file.write(piece)
        return target

    def events(self, job_id: str, after: int = 0) -> Iterator[Event]:
        """The events of a job until it ends, each once, whatever happens to the connection."""
        import httpx

        last, path, pause = after, f"/jobs/{part(job_id)}/events/stream", FIRST_PAUSE_SECONDS
        while True:
            try:
                with self._http.stream("GET", path, headers={"Last-Event-ID": str(last)}) as answer:
                    if answer.status_code == 204:
                        return
                    if answer.status_code not in (200, *AGAIN):
                        raise as_error(answer.status_code, answer.read().decode("utf-8", "replace"))
                    for event in _parsed(answer.iter_lines()) if answer.status_code == 200 else ():
                        if event is None:
                            return
                        last, pause = event.id, FIRST_PAUSE_SECONDS
                        yield event
            except httpx.TransportError as error:
                if pause > SECONDS:
                    raise self._lost(error) from error
            time.sleep(pause)
            pause *= 2

    def wait(self, job_id: str, seconds: float | None = None) -> Job:
        """A job once it has ended, or after so many seconds as it is then."""
        until = None if seconds is None else time.monotonic() + seconds
        while True:
            job = self.job(job_id)
            if job.has_ended or (until is not None and time.monotonic() >= until):
                return job
            time.sleep(POLL_SECONDS if until is None else min(POLL_SECONDS, max(0, until - time.monotonic())))

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _parsed(lines: Iterator[str]) -> Iterator[Event | None]:
    """The events of a stream; `None` where it says that no more will come."""
    data, kind = "", ""
    for line in lines:
        name, _colon, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            data += value
        elif name == "event":
            kind = value
        elif not line:
            if kind == "end":
                yield None
            elif data:
                yield Event.model_validate_json(data)
            data, kind = "", ""

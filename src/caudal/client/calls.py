"""What can be asked of the service, where it is, and what its refusals mean; without how that is sent."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic
from urllib.parse import quote

from caudal.client.records import Dataset, Job, Page, Plan, Project, Sent, Status, T
from caudal.core.errors import CaudalError, DataError, UsageError
from caudal.core.messages import _

TRIES = 4
FIRST_PAUSE_SECONDS = 0.3
SECONDS = 60.0
POLL_SECONDS = 2.0
_DEFAULT = "http://127.0.0.1:8741"
AGAIN = (429, 502, 503, 504)


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request, and the record that is its answer."""

    method: str
    path: str
    kind: type[T]
    query: dict[str, Any] = field(default_factory=dict)
    body: Any = None
    file: Path | None = None

    def given(self, key: str) -> dict[str, Any]:
        """What httpx takes."""
        query = {name: value for name, value in self.query.items() if value not in (None, "", ())}
        given: dict[str, Any] = {"params": query, "headers": {}}
        if self.method == "POST":
            given["headers"]["Idempotency-Key"] = key
        if self.body is not None:
            given["json"] = self.body
        if self.file is not None:
            given["headers"]["Content-Length"] = str(self.file.stat().st_size)
        return given

    @property
    def may_be_repeated(self) -> bool:
        """Whether twice is the same as once."""
        return self.method in ("GET", "PUT") or not self.path.endswith(("/cancel", "/retry"))


class Tries(Generic[T]):
    """One call, sent until it is answered, as far as it may be repeated; the same for whoever sends it.

    `key` is sent with each try, so that the service does it once.
    """

    def __init__(self, call: Call[T], key: str | None) -> None:
        self.call, self.key = call, key or uuid.uuid4().hex
        self._left, self._pause = TRIES, FIRST_PAUSE_SECONDS / 2

    def _again(self) -> bool:
        self._left -= 1
        return self._left > 0 and self.call.may_be_repeated

    def lost(self, error: CaudalError, cause: Exception) -> None:
        """There was no answer.

        Raises:
            CaudalError: `error`, if that was the last try.
        """
        if not self._again():
            raise error from cause

    def heard(self, status: int, content: bytes) -> T | None:
        """There was one; `None` where it has to be asked again.

        Raises:
            CaudalError: it is a refusal.
        """
        if 200 <= status < 300:
            return self.call.kind.model_validate_json(content)
        if status in AGAIN and self._again():
            return None
        raise as_error(status, content.decode("utf-8", "replace"))

    def pause(self) -> float:
        """Seconds until the next try: ever more."""
        self._pause *= 2
        return self._pause


def log_of(status: int, content: bytes, start: int) -> bytes | None:
    """What an answer says of a log from byte `start` on; `None` where there is nothing yet.

    Raises:
        CaudalError: it is a refusal.
    """
    if status in (404, 416):
        return None
    if not 200 <= status < 300:
        raise as_error(status, content.decode("utf-8", "replace"))
    return content if status == 206 else content[start:]


class Calls:
    """What can be asked, without how it is sent."""

    @staticmethod
    def job(job_id: str) -> Call[Job]:
        """One job."""
        return Call("GET", f"/jobs/{part(job_id)}", Job)

    @staticmethod
    def jobs(state: tuple[str, ...], project: str | None, limit: int, cursor: str) -> Call[Page[Job]]:
        """A page of jobs."""
        query = {"state": state, "project": project, "limit": limit, "cursor": cursor}
        return Call("GET", "/jobs", Page[Job], query)

    @staticmethod
    def submit(order: Mapping[str, Any]) -> Call[Job]:
        """Put a job in line."""
        return Call("POST", "/jobs", Job, body={k: v for k, v in order.items() if v is not None})

    @staticmethod
    def cancel(job_id: str) -> Call[Job]:
        """Ask a job to end."""
        return Call("POST", f"/jobs/{part(job_id)}/cancel", Job)

    @staticmethod
    def retry(job_id: str, smaller: bool) -> Call[Job]:
        """Try a job again."""
        return Call("POST", f"/jobs/{part(job_id)}/retry", Job, {"smaller": str(smaller).lower()})

    @staticmethod
    def status(job_id: str) -> Call[Status]:
        """How a job stands."""
        return Call("GET", f"/jobs/{part(job_id)}/status", Status)

    @staticmethod
    def plan(order: Mapping[str, Any]) -> Call[Plan]:
        """What a training would hold."""
        return Call("POST", "/plans", Plan, body={k: v for k, v in order.items() if v is not None})

    @staticmethod
    def project(name: str) -> Call[Project]:
        """A new project."""
        return Call("POST", "/projects", Project, body={"name": name})

    @staticmethod
    def dataset(name: str, place: str | None, project: str | None) -> Call[Dataset]:
        """A new data set."""
        body = {"name": name, "place": place, "project": project}
        return Call("POST", "/datasets", Dataset, body={k: v for k, v in body.items() if v is not None})

    @staticmethod
    def log(job_id: str, start: int) -> tuple[str, dict[str, str]]:
        """The address of a log, and the headers that ask for it from byte `start` on."""
        return f"/jobs/{part(job_id)}/log", {"Range": f"bytes={start}-"}

    @staticmethod
    def download(run_id: str, name: str) -> str:
        """The address of a file of a run."""
        return f"/runs/{part(run_id)}/files/{quote(name)}"

    @staticmethod
    def datasets(place: str | None, limit: int, cursor: str) -> Call[Page[Dataset]]:
        """A page of data sets."""
        query = {"place": place, "limit": limit, "cursor": cursor}
        return Call("GET", "/datasets", Page[Dataset], query)

    @staticmethod
    def send(dataset_id: str, name: str, file: Path) -> Call[Sent]:
        """Send a file."""
        return Call("PUT", f"/datasets/{part(dataset_id)}/files/{quote(name)}", Sent, file=file)


def part(text: str) -> str:
    """A part of a path, whatever it is made of."""
    return quote(text, safe="")


class Base:
    """Where the service is, and what its answers mean."""

    def __init__(self, url: str | None = None, token: str | None = None) -> None:
        left = _left_behind()
        self.url = (url or os.environ.get("CAUDAL_URL") or left.get("url") or _DEFAULT).rstrip("/")
        # The key of this machine's service is for that service alone.
        own = left.get("token") if self.url == left.get("url") else None
        self._token = token or os.environ.get("CAUDAL_TOKEN") or own or ""

    def _settings(self) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self._token}", "User-Agent": "caudal"} if self._token else {}
        return {"base_url": f"{self.url}/api/v1", "headers": headers, "timeout": SECONDS, "trust_env": False}

    def _lost(self, error: Exception) -> CaudalError:
        return CaudalError(
            _("No service answers at {url}.").format(url=self.url),
            _("Start it with `caudal serve`, or set CAUDAL_URL and CAUDAL_TOKEN."),
            why=type(error).__name__,
        )


def _left_behind() -> dict[str, str]:
    """What this machine's service says of itself while it runs."""
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "caudal"
    home = Path(os.environ.get("CAUDAL_HOME") or state)
    try:
        left: dict[str, str] = json.loads((home / "client.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return left


def as_error(status: int, text: str) -> CaudalError:
    """The error that a problem tells of: of the same kind as on a command line, as far as there is one."""
    try:
        said = json.loads(text)
        code, message, hint = str(said["code"]), str(said["detail"]), str(said["hint"])
    except (ValueError, KeyError, TypeError):
        code, message, hint = "http", _("The service answers {status}.").format(status=status), ""
    kind = _kind(code)
    if kind is None:
        kind = UsageError if 400 <= status < 500 else CaudalError
    return kind(message, hint, status=status, problem=code)


def _kind(code: str) -> type[CaudalError] | None:
    def kinds(kind: type[CaudalError]) -> list[type[CaudalError]]:
        return [kind, *(below for one in kind.__subclasses__() for below in kinds(one))]

    if code == "unreadable_file":
        return DataError
    ours = (kind for kind in kinds(CaudalError) if kind.__module__ == CaudalError.__module__)
    return next((kind for kind in ours if kind.code == code), None)

"""Tells an MLflow server of runs, if the service has one: by its REST interface, without its library.

A run there is begun by the supervisor and ended by the keeper, once the job has ended in the store: it never
stays RUNNING because something was killed. Nothing here may hold up or end a job: what the server does not
take is tried again, or left out.
"""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from caudal.core.files import write_whole
from caudal.service.errors import NotFound
from caudal.service.records import Job
from caudal.service.settings import Settings
from caudal.service.states import ENDED, State
from caudal.service.store import Store

_TIMEOUT_SECONDS = 5.0
_EXPERIMENT = "caudal"
_STATUS: dict[State, str] = {"succeeded": "FINISHED", "failed": "FAILED", "cancelled": "KILLED"}


class MLflow:
    """A server's REST interface, as far as runs need it. Every call may raise `OSError` or `ValueError`."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    def begin(self, job: Job) -> str:
        """A new run; its id."""
        tags = [{"key": "caudal.job", "value": job.id}, {"key": "caudal.verb", "value": job.work.verb}]
        made = self._post(
            "runs/create",
            experiment_id=self._experiment(),
            run_name=job.name or job.id,
            start_time=int(time.time() * 1000),
            tags=tags,
        )
        return str(made["run"]["info"]["run_id"])

    def log(self, run_id: str, metrics: dict[str, float], step: int, when: float) -> None:
        """Values of one step."""
        rows = [
            {"key": key, "value": value, "timestamp": int(when * 1000), "step": step}
            for key, value in metrics.items()
        ]
        self._post("runs/log-batch", run_id=run_id, metrics=rows)

    def set_status(self, run_id: str, status: str, reason: str = "") -> None:
        """RUNNING again, or one of the ends."""
        if reason:
            self._post("runs/set-tag", run_id=run_id, key="caudal.reason", value=reason)
        ended = {} if status == "RUNNING" else {"end_time": int(time.time() * 1000)}
        self._post("runs/update", run_id=run_id, status=status, **ended)

    def _experiment(self) -> str:
        name = urllib.parse.urlencode({"experiment_name": _EXPERIMENT})
        try:
            found = self._ask(urllib.request.Request(f"{self._place('experiments/get-by-name')}?{name}"))
            return str(found["experiment"]["experiment_id"])
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
        return str(self._post("experiments/create", name=_EXPERIMENT)["experiment_id"])

    def _place(self, what: str) -> str:
        return f"{self._url}/api/2.0/mlflow/{what}"

    def _post(self, what: str, **body: Any) -> dict[str, Any]:
        data, kind = json.dumps(body).encode(), {"Content-Type": "application/json"}
        return self._ask(urllib.request.Request(self._place(what), data, kind))

    def _ask(self, request: urllib.request.Request) -> dict[str, Any]:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:
            told: dict[str, Any] = json.loads(answer.read() or b"{}")
            return told


class Reporter(threading.Thread):
    """The supervisor's side: begins the run and tells of scores, in a thread that nobody waits for."""

    def __init__(self, settings: Settings, job: Job) -> None:
        super().__init__(name="caudal-tracking", daemon=True)
        self._server, self._job = MLflow(settings.tracking), job
        self._note = settings.job_folder(job.id) / "tracking"
        self._open = open_note(settings, job.id)
        self._scores: SimpleQueue[dict[str, Any]] = SimpleQueue()

    def tell(self, record: dict[str, Any]) -> None:
        """An event of the run."""
        if record["kind"] == "validated":
            self._scores.put(record)

    def run(self) -> None:
        """Until the process ends."""
        while (run_id := self._begun()) is None:
            time.sleep(_TIMEOUT_SECONDS)
        while True:
            record = self._scores.get()
            metrics = {
                key: value for key, value in (record.get("metrics") or {}).items() if value is not None
            }
            with suppress(OSError, ValueError):
                self._server.log(run_id, metrics, int(record.get("step", 0)), float(record["time"]))

    def _begun(self) -> str | None:
        try:
            if self._note.is_file():
                run_id = self._note.read_text(encoding="utf-8")
                self._server.set_status(run_id, "RUNNING")
            else:
                run_id = self._server.begin(self._job)
                write_whole(self._note, lambda part: part.write_text(run_id, encoding="utf-8"))
            self._open.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self._open, lambda part: part.write_text(run_id, encoding="utf-8"))
        except (OSError, ValueError, KeyError):
            return None
        return run_id


def open_note(settings: Settings, job_id: str) -> Path:
    """The file that says that a job's run is open at the server."""
    return settings.home / "tracking" / job_id


def end_tracked(store: Store, settings: Settings) -> None:
    """End the runs whose jobs have ended; those that the server does not take now stay for the next time."""
    if not settings.tracking:
        return
    server = MLflow(settings.tracking)
    for note in sorted(open_note(settings, "any").parent.glob("*")):
        with suppress(OSError, ValueError, NotFound):
            job = store.jobs.get(note.name)
            if job.state in ENDED:
                server.set_status(note.read_text(encoding="utf-8"), _STATUS[job.state], job.reason or "")
                note.unlink()

"""Tells an MLflow server of runs, if the service has one: by its REST interface, without its library.

A run there is begun by the supervisor and ended by a child of the keeper, once the job has ended in the
store: it never stays RUNNING because something was killed. A note on disk stands before the run does, and a
run is found again by its job's id, so that one whose beginning was not heard of is ended, too. Nothing here
may hold up or end a job: what the server does not take is tried again, or left out.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from caudal.core.files import write_whole
from caudal.service.errors import NotFound
from caudal.service.records import Job
from caudal.service.settings import Settings
from caudal.service.states import ENDED, State
from caudal.service.store import Store, open_store

_TIMEOUT_SECONDS = 5.0
_EXPERIMENT = "caudal"
_LOOKS = 10
"""So often a run is looked for of which it is not known whether it was begun."""
_FIRST_PAUSE_SECONDS, _MOST_PAUSE_SECONDS = 2.0, 60.0
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

    def find(self, job_id: str) -> list[str]:
        """The runs that were begun for a job."""
        wanted = f"tags.`caudal.job` = '{job_id}'"
        found = self._post("runs/search", experiment_ids=[self._experiment()], filter=wanted, max_results=100)
        return [str(run["info"]["run_id"]) for run in found.get("runs", [])]

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
            self._open.parent.mkdir(parents=True, exist_ok=True)
            known = self._note.read_text(encoding="utf-8") if self._note.is_file() else ""
            _write(self._open, known)
            run_id = known or next(iter(self._server.find(self._job.id)), "")
            if run_id:
                self._server.set_status(run_id, "RUNNING")
            else:
                run_id = self._server.begin(self._job)
            for note in (self._note, self._open):
                _write(note, run_id)
        except (OSError, ValueError, KeyError):
            return None
        return run_id


def _write(note: Path, text: str) -> None:
    write_whole(note, lambda part: part.write_text(text, encoding="utf-8"))


def open_note(settings: Settings, job_id: str) -> Path:
    """The file that says that a job's run is, or may be, open at the server: its id, or a dot for each time
    that it was looked for.
    """
    return settings.home / "tracking" / job_id


def ended_notes(store: Store, settings: Settings) -> list[tuple[Path, Job]]:
    """The notes whose jobs have ended."""
    found = []
    for note in sorted(open_note(settings, "any").parent.glob("*")):
        with suppress(NotFound):
            job = store.jobs.get(note.name)
            if job.state in ENDED:
                found.append((note, job))
    return found


def end_tracked(store: Store, settings: Settings) -> bool:
    """End the runs whose jobs have ended; whether none is left for the next time."""
    server = MLflow(settings.tracking)
    for note, job in ended_notes(store, settings):
        try:
            said = note.read_text(encoding="utf-8")
            looked_for = not said.strip(".")
            runs = server.find(job.id) if looked_for else [said]
            for run_id in runs:
                server.set_status(run_id, _STATUS[job.state], job.reason or "")
            if runs or len(said) >= _LOOKS:
                note.unlink()
            else:  # what was asked for just before a kill may yet begin
                _write(note, said + ".")
        except FileNotFoundError:
            continue  # another machine was first
        except urllib.error.HTTPError as error:
            if error.code == 404:  # somebody removed the run there
                note.unlink(missing_ok=True)
        except (OSError, ValueError, KeyError):
            return False
    return not ended_notes(store, settings)


class Ender:
    """The keeper's side: a child that ends runs, while there are any to end; nobody waits for it."""

    def __init__(self, store: Store, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._store, self._settings, self._clock = store, settings, clock
        self._child: subprocess.Popen[bytes] | None = None
        self._pause, self._next = _FIRST_PAUSE_SECONDS, clock() + _FIRST_PAUSE_SECONDS

    def tend(self) -> None:
        """Start the child where it is due.

        Raises:
            StoreAway: try again.
        """
        if not self._settings.tracking or self._clock() < self._next:
            return
        if self._child is not None:
            code = self._child.poll()
            if code is None:
                return
            self._child = None
            self._pause = _FIRST_PAUSE_SECONDS if not code else min(2 * self._pause, _MOST_PAUSE_SECONDS)
        self._next = self._clock() + self._pause
        if ended_notes(self._store, self._settings):
            words = [sys.executable, "-m", "caudal.service.tracking"]
            environment = os.environ | self._settings.environment()
            self._child = subprocess.Popen(words, env=environment, stdin=subprocess.DEVNULL)

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()


def main() -> int:
    """End what is to be ended, and say whether that was all."""
    settings = Settings.from_environment()
    with open_store(settings, migrate=False) as store:
        return 0 if end_tracked(store, settings) else 1


if __name__ == "__main__":
    sys.exit(main())

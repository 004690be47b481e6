"""A run at an MLflow server ends with its job, whatever is killed."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from caudal.service.settings import Settings
from caudal.service.store import Store, open_store
from caudal.service.tracking import Ender, MLflow, Reporter, end_tracked, open_note
from caudal.service.work import TrainWork
from tests.service.back.servers import until

WORK = TrainWork(task="hold", data=("/data",), ram="100MiB", device="cpu")


class Server(ThreadingHTTPServer):
    """What MLflow's REST interface does with runs."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.experiments: dict[str, str] = {}
        self.runs: dict[str, dict[str, Any]] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_words: object) -> None:
        pass

    def do_GET(self) -> None:
        self.answer(404, {"error_code": "RESOURCE_DOES_NOT_EXIST"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        what = self.path.removeprefix("/api/2.0/mlflow/")
        runs = self.server.runs
        told: dict[str, Any] = {}
        if what == "experiments/create":
            told = {"experiment_id": "1"}
        elif what == "runs/create":
            run_id = f"run{len(runs)}"
            tags = {tag["key"]: tag["value"] for tag in body["tags"]}
            runs[run_id] = {"status": "RUNNING", "metrics": [], "tags": tags, "name": body["run_name"]}
            told = {"run": {"info": {"run_id": run_id}}}
        elif what == "runs/search":
            job = body["filter"].split("'")[1]
            ids = [name for name, run in runs.items() if run["tags"].get("caudal.job") == job]
            told = {"runs": [{"info": {"run_id": name}} for name in ids]} if ids else {}
        elif what == "runs/log-batch":
            runs[body["run_id"]]["metrics"] += [
                (row["key"], row["value"], row["step"]) for row in body["metrics"]
            ]
        elif what == "runs/set-tag":
            runs[body["run_id"]]["tags"][body["key"]] = body["value"]
        elif what == "runs/update":
            runs[body["run_id"]]["status"] = body["status"]
        self.answer(200, told)

    def answer(self, status: int, told: dict[str, Any]) -> None:
        data = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def tracked(tmp_path: Path, server: Server) -> Iterator[tuple[Store, Settings]]:
    settings = Settings(home=tmp_path / "home", tracking=server.url)
    with open_store(settings) as store:
        yield store, settings


def test_a_run_is_begun_scored_and_ended_with_its_job(
    server: Server, tracked: tuple[Store, Settings]
) -> None:
    store, settings = tracked
    job, _new = store.jobs.submit(store.projects.create("one").id, WORK, name="nice")
    settings.job_folder(job.id).mkdir(parents=True)
    reporter = Reporter(settings, job)
    reporter.start()
    reporter.tell({"kind": "step_done", "time": 1.0})
    reporter.tell({"kind": "validated", "time": 1.0, "step": 7, "metrics": {"iou": 0.5, "dice": None}})
    until(lambda: server.runs and server.runs["run0"]["metrics"], what="scores")
    assert server.runs["run0"]["metrics"] == [("iou", 0.5, 7)]
    end_tracked(store, settings)
    assert server.runs["run0"]["status"] == "RUNNING"  # as its job is
    store.jobs.cancel(job.id)
    end_tracked(store, settings)
    assert server.runs["run0"]["status"] == "KILLED"
    assert not open_note(settings, job.id).exists()
    store.jobs.retry(job.id)
    Reporter(settings, job).start()
    until(lambda: open_note(settings, job.id).exists(), what="the same run again")
    assert {name: run["status"] for name, run in server.runs.items()} == {"run0": "RUNNING"}


def test_a_server_that_is_away_holds_up_nothing_and_hears_of_the_end_later(
    server: Server, tracked: tuple[Store, Settings]
) -> None:
    store, settings = tracked
    job, _new = store.jobs.submit(store.projects.create("one").id, WORK)
    run_id = MLflow(server.url).begin(job)
    note = open_note(settings, job.id)
    note.parent.mkdir(parents=True)
    note.write_text(run_id)
    store.jobs.cancel(job.id)
    nobody = settings.model_copy(update={"tracking": "http://127.0.0.1:9"})
    assert not end_tracked(store, nobody)
    assert note.exists()
    assert end_tracked(store, settings)
    assert (server.runs[run_id]["status"], note.exists()) == ("KILLED", False)


def test_a_run_whose_beginning_was_not_heard_of_is_found_by_its_job_and_ended(
    server: Server, tracked: tuple[Store, Settings]
) -> None:
    store, settings = tracked
    job, _new = store.jobs.submit(store.projects.create("one").id, WORK)
    note = open_note(settings, job.id)
    note.parent.mkdir(parents=True)
    note.write_text("")  # as a supervisor leaves it that is killed while it asks
    store.jobs.cancel(job.id)
    assert not end_tracked(store, settings)  # it may yet begin
    run_id = MLflow(server.url).begin(job)
    assert end_tracked(store, settings)
    assert (server.runs[run_id]["status"], note.exists()) == ("KILLED", False)
    note.write_text("")
    server.runs.clear()
    rounds = 0
    while not end_tracked(store, settings):
        rounds += 1
    assert 5 < rounds < 50  # it is not looked for for ever


def test_the_keeper_does_not_wait_for_a_server_that_does_not_answer(
    tracked: tuple[Store, Settings],
) -> None:
    store, settings = tracked
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        lost = settings.model_copy(update={"tracking": f"http://127.0.0.1:{deaf.getsockname()[1]}"})
        job, _new = store.jobs.submit(store.projects.create("one").id, WORK)
        note = open_note(settings, job.id)
        note.parent.mkdir(parents=True)
        note.write_text("run0")
        store.jobs.cancel(job.id)
        now = [0.0]
        ender = Ender(store, lost, lambda: now[0])
        now[0] = 10.0
        began = time.monotonic()
        ender.tend()
        assert time.monotonic() - began < 2.0
        ender.close()
    assert note.exists()

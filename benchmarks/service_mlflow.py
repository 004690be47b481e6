"""What a real MLflow server says of jobs that end in each way: `python -m benchmarks service_mlflow`.

The server runs in an environment of its own (`benchmarks.peers.setup mlflow`), on loopback.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import tomli_w
from tests.data.sets import blob_set
from tests.service.back.conftest import settings_for
from tests.service.back.house import House
from tests.service.back.servers import free_port, until

from benchmarks.peers.setup import python_of
from benchmarks.rows import Row
from caudal.core.events import Validated, read
from caudal.core.units import Bytes
from caudal.service.records import Job
from caudal.service.work import TrainWork

STEPS, VALIDATE_EVERY = 40, 10
WANTED = {"runs to its end": "FINISHED", "cancelled": "KILLED", "past its time": "FAILED",
          "killed, and its supervisor": "FINISHED"}  # fmt: skip
WITHIN_SECONDS = 10.0


def row() -> Row:
    """One job of each kind, one after the other."""
    python = python_of("mlflow")
    with tempfile.TemporaryDirectory(prefix="caudal-mlflow-") as name:
        folder, port = Path(name), free_port()
        url = f"http://127.0.0.1:{port}"
        words = ["-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
                 "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]  # fmt: skip
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(
                [str(python), *words], cwd=folder, stdout=log, stderr=log, start_new_session=True
            )
        try:
            until(lambda: _get(f"{url}/version"), seconds=120, what="MLflow answers")
            return _measured(folder, url)
        finally:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def _measured(folder: Path, url: str) -> Row:
    scenes = blob_set(folder / "scenes", [(96, 96)] * 6)
    program = (sys.executable, "-m", "caudal")
    house = House(settings_for(folder / "home", program=program, tracking=url, ram="2GiB"))
    figures, good = [("MLflow", _get(f"{url}/version"))], True
    try:
        house.start()
        for kind, wanted in WANTED.items():
            job, ended = _ended(house, scenes, kind)
            run = until(lambda job=job: _closed(url, job), seconds=60, what=f"{kind}: MLflow's end")
            seconds, status = max(0.0, time.time() - ended), run["info"]["status"]
            ours, theirs = _scores(house, job), _logged(url, run)
            same = ours == theirs
            good = good and status == wanted and seconds < WITHIN_SECONDS and same
            state = house.get(job)
            said = f"{state.state} {state.reason or ''}".strip()
            figures.append((
                kind,
                f"{said} here, {status} there within {seconds:.1f} s; of {len(ours)} scores "
                f"{len(ours) if same else 'not all'} are there with their steps",
            ))  # fmt: skip
    finally:
        house.close()
    return Row(
        "four trainings that end in four ways, told to a real MLflow server on loopback",
        f"its run ends as the job does, within {WITHIN_SECONDS:.0f} s, with every score",
        good,
        figures,
    )


def _ended(house: House, scenes: Path, kind: str) -> tuple[Job, float]:
    """A job of a kind that has ended, and when it was seen to."""
    steps = STEPS if kind in ("runs to its end", "killed, and its supervisor") else 100_000
    spec = scenes.parent / f"{kind}.toml"
    spec.write_text(
        tomli_w.dumps({
            "task": "segmentation",
            "data": {"images": [str(scenes)]},
            "model": {"config": {"width": 8, "depth": 2}},
            "training": {"steps": steps, "batch": 4, "validate_every": VALIDATE_EVERY, "patience": 0,
                         "checkpoint_steps": 5},
        })
    )  # fmt: skip
    work = TrainWork(spec=spec, ram=Bytes(2**30), device="cpu")
    limit = 20.0 if kind == "past its time" else None
    job, _new = house.store.jobs.submit(house.project, work, name=kind, limit_seconds=limit)
    house.queue.announce(job.id)
    if kind in ("cancelled", "killed, and its supervisor"):
        until(lambda: _scores(house, job), seconds=120, what="a score")
        if kind == "cancelled":
            house.store.jobs.cancel(job.id)
        else:
            attempt = house.attempt(job)
            assert attempt.pid
            os.kill(attempt.pid, signal.SIGKILL)  # its run dies with it
    house.ends(job, seconds=180)
    return job, time.time()


def _scores(house: House, job: Job) -> list[int]:
    """The steps at which the run was scored, last told once each."""
    path = house.settings.run_folder(job.id) / "events.jsonl"
    events = read(path) if path.is_file() else []
    return sorted({event.step for event in events if isinstance(event, Validated)})


def _closed(url: str, job: Job) -> dict[str, Any] | None:
    """The run of a job at the server, once it is not running."""
    found = _post(
        url, "runs/search", experiment_ids=_experiments(url), filter=f"tags.`caudal.job` = '{job.id}'"
    )
    runs = [run for run in found.get("runs", []) if run["info"]["status"] != "RUNNING"]
    return runs[0] if runs else None


def _logged(url: str, run: dict[str, Any]) -> list[int]:
    """The steps of its first metric that the server has."""
    keys = [metric["key"] for metric in run["data"].get("metrics", [])]
    if not keys:
        return []
    place = f"{url}/api/2.0/mlflow/metrics/get-history?run_id={run['info']['run_id']}&metric_key={keys[0]}"
    rows = json.loads(_get(place)).get("metrics", [])
    return sorted({int(row["step"]) for row in rows})


def _experiments(url: str) -> list[str]:
    found = _post(url, "experiments/search", max_results=10)
    return [one["experiment_id"] for one in found.get("experiments", [])]


def _post(url: str, what: str, **body: Any) -> dict[str, Any]:
    request = urllib.request.Request(
        f"{url}/api/2.0/mlflow/{what}", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        told: dict[str, Any] = json.loads(answer.read() or b"{}")
        return told


def _get(url: str) -> str:
    """What is answered; empty as long as nobody does."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""

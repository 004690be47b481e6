"""The scripts of the tutorial as they stand there: from `caudal serve` to a finished training."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from caudal.service.store import open_store
from tests.data.sets import blob_set
from tests.service.back.servers import Postgres, Redis, free_port

ROOT = Path(__file__).parents[3]
TUTORIAL = ROOT / "docs" / "tutorial" / "service.md"
_MOST_SECONDS = 240

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


def scripts() -> tuple[str, str]:
    """What asks for the job; and what serves it through Celery, with the first one beside it in a file."""
    found = re.findall(r"^```bash\n(.*?)^```", TUTORIAL.read_text(), re.MULTILINE | re.DOTALL)
    first, scaled = found
    return str(first), str(scaled)


def scenes(folder: Path) -> None:
    blob_set(folder, [(96, 96)] * 6 + [(70, 130), (130, 64)] * 2)


def test_the_tutorials_script_runs_from_serve_to_a_finished_training(tmp_path: Path) -> None:
    scenes(tmp_path / "scenes")
    home = tmp_path / "home"
    env = os.environ | {"CAUDAL_HOME": str(home), "CAUDAL_LANG": "en"}
    words = ["serve", "--port", "0", "--root", f"scenes={tmp_path / 'scenes'}", "--ram", "3GiB", "--json"]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "caudal", *words], env=env, stdout=subprocess.PIPE, stderr=log, text=True
        )
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        assert line, (tmp_path / "log").read_text()
        said = json.loads(line)
        done = subprocess.run(
            ["bash", "-c", scripts()[0]],
            env=env | {"CAUDAL_URL": said["url"]},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=_MOST_SECONDS,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert '"state":"succeeded"' in done.stdout
        assert '"iou":' in done.stdout
        assert (tmp_path / "model.safetensors").stat().st_size > 1000
        jobs = subprocess.run(
            [sys.executable, "-m", "caudal", "jobs", "list", "--json"],
            env=env,
            capture_output=True,
            text=True,
        )
        assert len(json.loads(jobs.stdout)["jobs"]) == 1  # asked for twice
    finally:
        server.send_signal(signal.SIGTERM)
        code = server.wait(60)
        server.stdout.close()  # type: ignore[union-attr]
    assert code == 0
    token = (home / "token").read_text().strip()
    assert token not in (tmp_path / "log").read_text()
    assert not (home / "client.json").exists()


@pytest.fixture
def away() -> Iterator[dict[str, str]]:
    """A Redis and an empty PostgreSQL, as the script is told of them."""
    redis, postgres = Redis(), Postgres()
    try:
        yield {"CAUDAL_BROKER": redis.start().url, "CAUDAL_DATABASE": postgres.start().url}
    finally:
        redis.kill()
        postgres.remove()


def test_the_tutorials_script_runs_through_redis_celery_and_postgresql(
    tmp_path: Path, away: dict[str, str]
) -> None:
    scenes(tmp_path / "demo" / "scenes")
    first, scaled = scripts()
    (tmp_path / "first-job.sh").write_text(first)
    home = tmp_path / "home"
    own = {"CAUDAL_HOME": str(home), "CAUDAL_LANG": "en", "CAUDAL_URL": f"http://127.0.0.1:{free_port()}"}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    script = subprocess.Popen(
        ["bash", "-c", scaled],
        env=os.environ | own | away | {"PATH": path},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _errors = script.communicate(timeout=_MOST_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(script.pid, signal.SIGTERM)  # server and worker too: they end what they started
        said, _errors = script.communicate()
    assert script.returncode == 0, said
    assert '"state":"succeeded"' in said
    assert '"iou":' in said
    assert (tmp_path / "model.safetensors").stat().st_size > 1000
    with open_store(away["CAUDAL_DATABASE"], migrate=False) as store:
        assert [job.state for job in store.jobs.list()] == ["succeeded"]
        assert [worker.queue for worker in store.workers.list(all=True)] == ["celery"]
        assert [worker.state for worker in store.workers.list(all=True)] == ["gone"]  # it was ended in order
    assert not (home / "caudal.db").exists()

"""The script of the tutorial as it stands there: from `caudal serve` to a finished training."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.data.sets import blob_set

ROOT = Path(__file__).parents[3]
TUTORIAL = ROOT / "docs" / "tutorial" / "service.md"


def script() -> str:
    found = re.findall(r"^```bash\n(.*?)^```", TUTORIAL.read_text(), re.MULTILINE | re.DOTALL)
    assert len(found) == 1
    return str(found[0])


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_tutorials_script_runs_from_serve_to_a_finished_training(tmp_path: Path) -> None:
    blob_set(tmp_path / "scenes", [(96, 96)] * 6 + [(70, 130), (130, 64)] * 2)
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
            ["bash", "-c", script()],
            env=env | {"CAUDAL_URL": said["url"]},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=240,
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

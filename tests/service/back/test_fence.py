"""One attempt alone may write in a job's folder, on whatever machine the others wake up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from caudal.runs.watched import FENCE, SUPERSEDED
from caudal.service.fence import Overtaken, read, take

STALE = """
import sys
from pathlib import Path
from caudal.core.files import write_whole
from caudal.runs.watched import heed_fence
heed_fence()
out = Path(sys.argv[1])
write_whole(out / "first", lambda part: part.write_text("1"))
print("written", flush=True)
sys.stdin.readline()
write_whole(out / "second", lambda part: part.write_text("2"))
print("never", flush=True)
"""


def test_the_highest_number_has_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "job"
    assert read(folder) == (0, "")
    assert take(folder, 1, "here") is False
    assert take(folder, 3, "here") is False
    with pytest.raises(Overtaken):
        take(folder, 2, "here")
    assert read(folder) == (3, "here")
    assert take(folder, 4, "elsewhere") is True


def test_who_was_overtaken_puts_no_file_in_place(tmp_path: Path) -> None:
    take(tmp_path, 1, "here")
    child = subprocess.Popen(
        [sys.executable, "-c", STALE, str(tmp_path)],
        env=os.environ | {FENCE: f"{tmp_path / 'fence'}:1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout
    assert child.stdout.readline() == "written\n"
    take(tmp_path, 2, "elsewhere")
    output, _ = child.communicate("go on\n", timeout=30)
    assert (output, child.returncode) == ("", SUPERSEDED)
    assert (tmp_path / "first").exists()
    assert not (tmp_path / "second").exists()


def test_a_run_taken_over_from_elsewhere_gets_files_that_nobody_holds_open(tmp_path: Path) -> None:
    take(tmp_path, 1, "elsewhere")
    run = tmp_path / "run"
    run.mkdir()
    line = json.dumps({"kind": "a", "time": 1.0}) + "\n"
    (run / ".lock").write_text("1")
    with (run / "events.jsonl").open("a", buffering=1) as stale:
        stale.write(line)
        take(tmp_path, 2, "here")
        stale.write(line)
    assert (run / "events.jsonl").read_text() == line
    assert not (run / ".lock").exists()

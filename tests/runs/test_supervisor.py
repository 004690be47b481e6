"""The end of a run has a name, and a run that the system killed for want of memory goes on with less."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from caudal.core.events import RunEnded, RunKilled, RunStarted, Warned, read
from caudal.core.units import MIB
from caudal.runs.supervisor import watch
from tests.cgroups import memory_group

CAUDAL = [sys.executable, "-m", "caudal"]
NEIGHBOUR = Path(__file__).with_name("greedy_neighbour.py")


def python(text: str) -> list[str]:
    return [sys.executable, "-c", text]


def write_spec(path: Path, data: Path, **training: int) -> None:
    lines = [f"{key} = {value}" for key, value in training.items()]
    head = ['task = "segmentation"', "[data]", f"images = [{json.dumps(str(data))}]", "[training]"]
    path.write_text("\n".join([*head, *lines]) + "\n")


def test_an_end_by_itself_keeps_its_code_and_a_signal_has_its_number() -> None:
    ended = watch(python("raise SystemExit(4)"), {})
    assert (ended.reason, ended.code, ended.signal) == ("ended", 4, 0)
    killed = watch(python("import os, signal; os.kill(os.getpid(), signal.SIGKILL)"), {})
    assert (killed.reason, killed.signal) == ("killed", signal.SIGKILL)


def test_a_time_limit_asks_first_and_kills_the_whole_group_after_a_grace() -> None:
    heeds = "import signal, sys; signal.signal(15, lambda *_: sys.exit(8)); signal.pause()"
    ended = watch(python(heeds), {}, limit_seconds=1.0)
    assert (ended.reason, ended.code) == ("ended", 8)
    deaf = """
import os, signal, subprocess, sys
signal.signal(15, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
open(os.environ["NOTE"], "w").write(str(child.pid))
signal.pause()
"""
    with tempfile.TemporaryDirectory() as folder:
        note = Path(folder) / "pid"
        late = watch(python(deaf), {"NOTE": str(note)}, limit_seconds=1.0, grace_seconds=0.5)
        assert (late.reason, late.code, late.signal) == ("timeout", 1, signal.SIGKILL)
        assert ends(int(note.read_text()))


def ends(pid: int) -> bool:
    """Whether a process is gone, or goes within some seconds: who was killed may need a moment to die."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([process], [], [], 10.0)[0])
    finally:
        os.close(process)


def test_what_a_process_used_is_known_at_its_end() -> None:
    ended = watch(python("x = bytearray(200_000_000); y = sum(range(3_000_000))"), {})
    assert ended.resident > 190_000_000
    assert 0.01 < ended.cpu_seconds < ended.seconds + 1


@pytest.mark.timeout(120)
def test_a_run_at_its_time_limit_leaves_a_checkpoint_and_goes_on(tiny_set: Path, tmp_path: Path) -> None:
    spec, out = tmp_path / "spec.toml", tmp_path / "run"
    write_spec(spec, tiny_set, steps=100000, batch=8, validate_every=100000)
    command = [*CAUDAL, "train", str(spec), "-o", str(out), "--ram", "700MiB", "--json", "--time"]
    done = subprocess.run([*command, "14s"], capture_output=True, text=True, check=False)
    assert done.returncode == 8, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["error"]["code"] == "timeout"
    ended = [event for event in read(out / "events.jsonl") if isinstance(event, RunEnded)]
    assert [(one.outcome, one.reason) for one in ended] == [("interrupted", "timeout")]
    assert list((out / "checkpoints").glob("step-*.safetensors"))
    again = subprocess.run([*command, "10s"], capture_output=True, check=False)
    assert again.returncode == 8
    first, second = [event.step for event in read(out / "events.jsonl") if isinstance(event, RunStarted)]
    assert first == 0 < second
    assert subprocess.run([*command, "soon"], capture_output=True, check=False).returncode == 2


def test_the_environment_reaches_the_child() -> None:
    assert watch(python("import os; raise SystemExit(int(os.environ['N']))"), {"N": "3"}).code == 3


def test_a_signal_to_the_watcher_is_handed_on() -> None:
    child = """
import signal, sys
signal.signal(15, lambda *_: sys.exit(5))
print("up", flush=True)
signal.pause()
"""
    program = f"""
from caudal.runs.supervisor import watch
import sys
sys.exit(watch([sys.executable, "-c", {child!r}], {{}}).code)
"""
    with subprocess.Popen(python(program), stdout=subprocess.PIPE, text=True) as watcher:
        assert watcher.stdout
        assert watcher.stdout.readline() == "up\n"
        watcher.send_signal(signal.SIGTERM)
        assert watcher.wait(30) == 5


def test_a_child_does_not_outlive_its_watcher() -> None:
    child = "import os, signal; print(os.getpid(), flush=True); signal.pause()"
    program = f"""
from caudal.runs.supervisor import watch
import sys
watch([sys.executable, "-c", {child!r}], {{}})
"""
    with subprocess.Popen(python(program), stdout=subprocess.PIPE, text=True) as watcher:
        assert watcher.stdout
        watcher.stdout.readline()
        watcher.kill()
        assert watcher.stdout.read() == ""  # at its end: nobody has it open any more


def test_the_watcher_itself_is_small() -> None:
    program = """
import sys
import caudal.cli.entry, caudal.runs.supervisor
from caudal.memory.meters import charged_bytes
print(int(charged_bytes()), [name for name in ("torch", "numpy", "rasterio") if name in sys.modules])
"""
    done = subprocess.run(python(program), capture_output=True, text=True, check=True)
    held, heavy = done.stdout.split(maxsplit=1)
    assert heavy.strip() == "[]"
    assert int(held) < 32 * MIB


@pytest.mark.cgroup
@pytest.mark.timeout(200)
def test_a_run_killed_by_a_greedy_neighbour_goes_on_with_a_smaller_plan(
    tiny_set: Path, tmp_path: Path
) -> None:
    spec, out = tmp_path / "spec.toml", tmp_path / "run"
    write_spec(spec, tiny_set, steps=30, batch=8, validate_every=30, checkpoint_steps=5)
    spec.write_text(spec.read_text() + "[model.config]\nwidth = 16\ndepth = 2\n")
    with memory_group(700 * MIB) as group:
        neighbour = subprocess.Popen([sys.executable, str(NEIGHBOUR), str(group), str(out / "events.jsonl")])
        run = subprocess.Popen(
            [*CAUDAL, "train", str(spec), "-o", str(out), "--ram", "600MiB", "--json"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            preexec_fn=lambda: (group / "cgroup.procs").write_text(str(os.getpid())),
        )  # fmt: skip
        output, errors = run.communicate()
        neighbour.kill()
        neighbour.wait()
    assert run.returncode == 0, errors
    assert "smaller plan" in errors
    result = json.loads(output.splitlines()[-1])
    killed = [event for event in read(out / "events.jsonl") if isinstance(event, RunKilled)]
    assert [(one.reason, one.signal, one.goes_on) for one in killed] == [("oom_host", signal.SIGKILL, True)]
    assert killed[0].peak_bytes > 100 * MIB
    assert any(
        isinstance(event, Warned) and "want of memory" in event.message
        for event in read(out / "events.jsonl")
    )
    assert any("want of memory" in text for text in result["warnings"])
    assert result["metrics"]["iou"] > 0.2


def test_a_process_that_was_asked_to_end_is_known_as_such() -> None:
    """Killed or not: whoever pressed Ctrl-C does not want it started again."""
    child = "import os, signal; os.kill(os.getppid(), 2); signal.sigwait([2]); os.kill(os.getpid(), 9)"
    waits = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [2]);" + child
    assert watch(python(waits), {}).asked_to_end
    assert not watch(python("pass"), {}).asked_to_end

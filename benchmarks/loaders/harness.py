"""Runs one loader as a child process and measures it from outside; takes no side between loaders.

The child imports its libraries and says `ready`: what it holds then is its base. It warms up and says
`warm`: from here its samples, seconds and processor time count. At `done` it tells what it did.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.cgroups import memory_group

from benchmarks.loaders.meter import Meter, processor_seconds
from benchmarks.peers.child import Job

ROOT = Path(__file__).resolve().parents[2]
NO_LIMIT = 2**50
PATIENCE_SECONDS = 5.0
# For every loader alike: OpenMP's threads sleep while they wait, or they hold the cores that others need.
ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "3000"}


@dataclass(frozen=True)
class Child:
    """A loader as a program: `module` in the environment of `python`, with its settings."""

    label: str
    module: str
    python: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """How a run went. `failed` says how it ended if it did not finish; then the figures are zeros.

    Bytes are charged ones (anonymous and shared, each page once) of the whole process tree; `base_bytes` is
    what was held once the libraries were imported. `cpu_seconds` belong to the timed samples alone.
    """

    label: str
    samples: int = 0
    seconds: float = 0.0
    first_batch_seconds: float = 0.0
    stall: float = 0.0
    cpu_seconds: float = 0.0
    base_bytes: int = 0
    peak_bytes: int = 0
    checksum: int | None = None
    mean: float | None = None
    meter: str = ""
    failed: str = ""

    @property
    def rate(self) -> float:
        """Samples a second."""
        return self.samples / self.seconds if self.seconds else 0.0

    @property
    def above_bytes(self) -> int:
        """Peak above the imported base."""
        return self.peak_bytes - self.base_bytes


def run(child: Child, job: Job, limit_bytes: int | None = None, timeout_seconds: float = 300) -> Result:
    """Run a loader; in a real group of `limit_bytes` if given.

    Raises:
        RuntimeError: a limit was asked for, and no memory group can be made here.
    """
    job = dataclasses.replace(job, options={**job.options, **child.options})
    with _group(limit_bytes) as group, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [child.python, "-m", child.module, json.dumps(_plain(job))],
            cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
            env=os.environ | ENVIRONMENT,
            start_new_session=True, preexec_fn=None if group is None else lambda: _enter(group),
        )  # fmt: skip
        meter = Meter(process.pid, group)
        late = threading.Timer(timeout_seconds, _kill, [process])
        late.start()
        try:
            facts = _follow(process, meter)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE_SECONDS)
        finally:
            timely = late.is_alive()
            late.cancel()
            meter.stop()
            _kill(process)
            process.wait()
            kills = 0 if group is None else _emptied(group)
        errors.seek(0)
        failed = "" if facts else _reason(process.returncode, kills, errors.read())
        if not timely and not facts:
            failed = f"not done after {timeout_seconds:.0f} s"
    return Result(
        child.label, base_bytes=meter.base, peak_bytes=meter.peak, meter=meter.name, failed=failed, **facts
    )


def _plain(job: Job) -> dict[str, Any]:
    values = dataclasses.asdict(job)
    if job.seconds_most == float("inf"):  # JSON has no such number
        values.pop("seconds_most")
    return values


def _follow(process: subprocess.Popen[str], meter: Meter) -> dict[str, Any]:
    """Answer the child's marks; what it said at `done`, or nothing if it ended before."""
    assert process.stdout
    assert process.stdin
    used, found = 0.0, dict[str, Any]()
    for line in process.stdout:
        if not line.startswith('{"mark"'):
            continue
        facts: dict[str, Any] = json.loads(line)
        name = facts.pop("mark")
        if name == "ready":
            meter.start()
        elif name == "warm":
            used = processor_seconds(process.pid)
        else:
            found = facts | {"cpu_seconds": processor_seconds(process.pid) - used}
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write("\n")
            process.stdin.flush()
        if name == "done":
            meter.stop()
            break
    return found


@contextlib.contextmanager
def _group(limit_bytes: int | None) -> Iterator[Path | None]:
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(memory_group(limit_bytes or NO_LIMIT))
        except pytest.skip.Exception as error:
            if limit_bytes is not None:
                raise RuntimeError(f"no memory group can be made here: {error}") from error
            folder = None
        yield folder


def _enter(group: Path) -> None:
    (group / "cgroup.procs").write_text(str(os.getpid()))


def _kill(process: subprocess.Popen[str]) -> None:
    """The child and its workers: they are a session of their own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _emptied(group: Path) -> int:
    """Wait until no process is left in the group; how many were killed in it for want of memory."""
    until = time.monotonic() + 10
    while (group / "cgroup.procs").read_text() and time.monotonic() < until:
        time.sleep(0.02)
    control = group / "memory.oom_control"
    text = (control if control.exists() else group / "memory.events").read_text()
    return int(dict(line.split() for line in text.splitlines()).get("oom_kill", 0))


def _reason(code: int, kills: int, errors: str) -> str:
    words = [line.strip() for line in errors.splitlines() if line.strip()]
    last = words[-1][:160] if words else "without a word"
    return f"killed for want of memory ({last})" if kills else f"ended with {code}: {last}"

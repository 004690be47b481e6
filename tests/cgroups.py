"""A real memory control group around a child process, where root may make one."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from caudal.memory import cgroup


@dataclass
class Ended:
    """How a child in a group ended; bytes are the group's own count."""

    returncode: int
    output: str
    oom_kills: int
    peak_charged: int


def _v1() -> Path | None:
    group = cgroup.read()
    return group.path if group.version == 1 else None


def _v2() -> Path | None:
    group = cgroup.read()
    return group.path if group.version == 2 else None


@contextlib.contextmanager
def memory_group(limit_bytes: int) -> Iterator[Path]:
    """A new group with a limit; skips where none can be made."""
    parent = _v1() or _v2()
    if parent is None or os.geteuid() != 0:
        pytest.skip("no memory cgroup that this user may write")
    folder = parent / f"caudal-test-{os.getpid()}-{threading.get_ident()}"
    name = "memory.limit_in_bytes" if _v1() else "memory.max"
    try:
        folder.mkdir()
        (folder / name).write_text(str(limit_bytes))
    except OSError as error:
        with contextlib.suppress(OSError):
            folder.rmdir()
        pytest.skip(f"the memory cgroup is not writable: {error}")
    try:
        yield folder
    finally:
        _remove(folder)


def _remove(folder: Path, patience_seconds: float = 20.0) -> None:
    """Take a group away, and whoever is left in it: children of a child that was killed."""
    until = time.monotonic() + patience_seconds
    while True:
        for pid in (folder / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        try:
            folder.rmdir()
        except OSError:  # they are not gone yet
            if time.monotonic() > until:
                raise
            time.sleep(0.02)
        else:
            return


def run_in_group(command: Sequence[str], limit_bytes: int, timeout_seconds: float = 280, **env: str) -> Ended:
    """Run `command` under a real limit and wait for it."""
    with memory_group(limit_bytes) as folder:

        def enter() -> None:
            (folder / "cgroup.procs").write_text(str(os.getpid()))

        child = subprocess.Popen(
            list(command),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=enter,
            env=os.environ | env,
        )
        peak, done = [0], threading.Event()

        def watch() -> None:
            while not done.wait(0.02):
                peak[0] = max(peak[0], _charged(folder))

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            output, _ = child.communicate(timeout=timeout_seconds)
        finally:
            child.kill()
            child.wait()
            done.set()
            watcher.join()
        return Ended(child.returncode, output, _oom_kills(folder), peak[0])


def _table(path: Path) -> dict[str, int]:
    return {key: int(value) for key, value in (line.split() for line in path.read_text().splitlines())}


def _charged(folder: Path) -> int:
    stat = _table(folder / "memory.stat")
    if "total_rss" in stat:
        return stat["total_rss"] + stat.get("total_shmem", 0)
    return stat["anon"] + stat.get("shmem", 0)


def _oom_kills(folder: Path) -> int:
    control = folder / "memory.oom_control"
    return _table(control if control.exists() else folder / "memory.events").get("oom_kill", 0)

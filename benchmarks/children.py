"""Children of a benchmark: the `caudal` command, or a module of this package, under a real limit."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from tests.cgroups import Ended, run_in_group

GIB, MIB = 2**30, 2**20
CAUDAL = [sys.executable, "-m", "caudal"]


def data_dir() -> Path:
    """The real data: `CAUDAL_TEST_DATA`, else `../shared/data` beside the repository."""
    default = Path(__file__).resolve().parents[1] / ".." / "shared" / "data"
    return Path(os.environ.get("CAUDAL_TEST_DATA", default)).resolve()


def caudal(
    limit_bytes: int, *words: str | Path, timeout_seconds: float = 3000
) -> tuple[dict[str, Any], Ended]:
    """Run a verb with --json in a group of that size; its object and how it ended."""
    ended = run_in_group([*CAUDAL, *map(str, words), "--json"], limit_bytes, timeout_seconds)
    return last_object(ended), ended


def module(name: str, limit_bytes: int, *words: str | Path, timeout_seconds: float = 3000) -> dict[str, Any]:
    """Run `python -m benchmarks.NAME` in a group of that size; the object it printed last."""
    command = [sys.executable, "-m", f"benchmarks.{name}", *map(str, words)]
    return last_object(run_in_group(command, limit_bytes, timeout_seconds))


def last_object(ended: Ended) -> dict[str, Any]:
    """The JSON object in the last line that is one."""
    lines = [line for line in ended.output.splitlines() if line.startswith("{")]
    assert ended.returncode == 0, f"exit {ended.returncode}, {ended.oom_kills} kills\n{ended.output}"
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def mib(value: float) -> str:
    """Bytes as MiB."""
    return f"{value / MIB:.0f} MiB"


def error_of(predicted: float, measured: float) -> str:
    """How far a prediction is from what was measured."""
    return f"{(predicted - measured) / measured:+.1%}"

"""The name of every end, and where the job goes from there: two tables, without a process."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from caudal.core.units import Bytes
from caudal.runs.supervisor import Ending as ProcessEnding
from caudal.service.ends import Ending, next_step, wait_seconds
from caudal.service.naming import Asked, Left, last_told, name, told_in
from caudal.service.records import Job, Problem
from caudal.service.settings import Settings
from caudal.service.states import MOVES, REASONS
from caudal.service.work import TrainWork

SETTINGS = Settings(memory_retries=2, lost_retries=3)


def left(
    code: int = 0,
    number: int = 0,
    reason: Any = None,
    error: str = "",
    log: str = "",
    asked: Asked | None = None,
    oom_kill: bool = False,
    told: bool = True,
    no_room: bool = False,
) -> Left:
    said: dict[str, Any] | None = {"verb": "train"} if told else None
    if error:
        said = {"error": {"code": error, "message": "m", "hint": "h"}}
    reason = reason or ("killed" if number else "ended")
    return Left(ProcessEnding(reason, code, number, 1.0, Bytes(0), 0.0), said, log, asked, oom_kill, no_room)


@pytest.mark.parametrize(
    ("what", "named"),
    [
        (left(), "succeeded"),
        (left(asked="cancel"), "succeeded"),  # it was done before it heard
        (left(1, asked="cancel", error="data"), "cancelled"),
        (left(number=signal.SIGKILL, asked="cancel"), "cancelled"),
        (left(8, error="timeout"), "timeout"),
        (left(number=signal.SIGTERM, asked="timeout", told=False), "timeout"),
        (left(number=signal.SIGKILL, asked="timeout", told=False), "timeout"),
        (left(5, error="interrupted", asked="stop"), "stopped"),
        (left(number=signal.SIGKILL, asked="stop", told=False), "stopped"),
        (left(4, error="bad_pair", asked="stop"), "data"),
        (left(5, error="interrupted"), "killed"),
        (left(number=signal.SIGKILL, told=False), "killed"),
        (left(number=signal.SIGTERM, told=False), "killed"),
        (left(number=signal.SIGHUP, told=False), "killed"),
        (left(number=signal.SIGSEGV, told=False), "error"),
        (left(reason="oom_host", number=signal.SIGKILL, told=False), "oom_host"),
        (left(reason="oom_shm", number=signal.SIGBUS, told=False), "oom_shm"),
        (left(7, error="out_of_memory"), "oom_host"),
        (left(7, error="out_of_memory", log="torch.OutOfMemoryError: CUDA out of memory."), "oom_device"),
        (left(1, log="torch.OutOfMemoryError: CUDA out of memory. Tried", told=False), "oom_device"),
        (left(1, error="worker_died", oom_kill=True), "oom_host"),
        (left(1, error="worker_died"), "error"),
        (left(1, log="MemoryError", told=False), "oom_host"),
        (left(1, error="disk_full"), "disk_full"),
        (left(1, log="OSError: [Errno 28] No space left on device", told=False), "disk_full"),
        (left(1, told=False, no_room=True), "disk_full"),  # there was no room for words
        (left(4, error="data", no_room=True), "data"),
        (left(4, error="unreadable_file"), "data"),
        (left(4, error="too_many_broken"), "data"),
        (left(4, error="bad_model"), "data"),
        (left(3, error="does_not_fit"), "does_not_fit"),
        (left(2, error="usage"), "error"),
        (left(6, error="device_missing"), "error"),
        (left(0, told=False), "error"),  # it says nothing, so nobody knows
        (left(1, log="Traceback\nValueError: nobody thought of it", told=False), "error"),
    ],
)
def test_every_end_has_one_name(what: Left, named: str) -> None:
    how, problem = name(what)
    assert how == named
    assert (problem is not None) >= (how in REASONS)
    if problem is not None:
        assert problem.message


def test_what_nobody_thought_of_shows_its_last_words() -> None:
    how, problem = name(left(1, log="Traceback\nValueError: nobody thought of it\n\n", told=False))
    assert how == "error"
    assert problem is not None
    assert "nobody thought of it" in problem.message


def test_the_last_line_is_the_result_and_half_a_line_is_none(tmp_path: Path) -> None:
    path = tmp_path / "out"
    assert last_told(path) is None
    path.write_text("words\n" + json.dumps({"a": float("nan")}) + "\n")
    assert last_told(path) == {"a": None}
    path.write_text('{"a": 1')
    assert last_told(path) is None
    path.write_text("[1]\n")
    assert last_told(path) is None


def test_a_result_with_very_many_warnings_is_a_result_and_keeps_the_first(tmp_path: Path) -> None:
    path = tmp_path / "out"
    warnings = [f"\u2028 tile {number} has failed: {'x' * 100}" for number in range(2000)]
    path.write_text(
        "words\n" + json.dumps({"verb": "predict", "warnings": warnings}, ensure_ascii=False) + "\n"
    )
    told = last_told(path)
    assert told is not None
    assert told["warnings"][:-1] == warnings[:100]
    assert "1900" in told["warnings"][-1]
    path.write_text(json.dumps({"verb": "train", "warnings": warnings}, indent=1))
    assert told_in(path) == told | {"verb": "train"}


def job(**more: Any) -> Job:
    values: dict[str, Any] = {
        "id": "j", "number": 1, "version": 1, "project_id": "p", "name": "", "state": "running",
        "work": TrainWork(task="t", data=("d",)), "reason": None, "error": None, "next": "", "result": None,
        "priority": 0, "created": 0.0, "queued": 0.0, "started": 0.0, "ended": None, "limit_seconds": None,
        "spent_seconds": 0.0, "wait_seconds": 0.0, "ram_bytes": None, "vram_bytes": None,
        "granted_ram": None, "peak_bytes": {}, "limit_bytes": {}, "attempts": 1, "fence": 1,
        "cancel": False, "smaller": False, "memory_retries": 0, "lost_retries": 0, "run_id": None,
        "seen_event": 0, "last_events": [],
    } | more  # fmt: skip
    return Job.model_validate(values)


@pytest.mark.parametrize(
    ("how", "before", "state", "reason"),
    [
        ("succeeded", {}, "succeeded", None),
        ("succeeded", {"cancel": True}, "succeeded", None),
        ("stopped", {}, "queued", None),
        ("stopped", {"cancel": True}, "cancelled", None),
        ("cancelled", {"cancel": True}, "cancelled", None),
        ("oom_host", {}, "waiting", "oom_host"),
        ("oom_device", {"memory_retries": 1}, "waiting", "oom_device"),
        ("oom_host", {"memory_retries": 2}, "failed", "oom_host"),
        ("oom_host", {"cancel": True}, "cancelled", None),
        ("oom_shm", {}, "failed", "oom_shm"),
        ("killed", {}, "waiting", "killed"),
        ("worker_lost", {"lost_retries": 2}, "waiting", "worker_lost"),
        ("worker_lost", {"lost_retries": 3}, "failed", "worker_lost"),
        ("disk_full", {}, "failed", "disk_full"),
        ("timeout", {}, "failed", "timeout"),
        ("data", {}, "failed", "data"),
        ("error", {}, "failed", "error"),
    ],
)
def test_where_a_job_goes_after_an_end(
    how: Any, before: dict[str, Any], state: str, reason: str | None
) -> None:
    step = next_step(job(**before), Ending(how=how), SETTINGS)
    assert (step.state, step.reason) == (state, reason)
    assert bool(step.next) == (step.state != "succeeded")
    assert step.state in MOVES["cancelling" if before.get("cancel") else "running"]


def test_after_want_of_memory_the_plan_is_smaller_and_never_the_same_again() -> None:
    step = next_step(job(), Ending(how="oom_host"), SETTINGS)
    assert (step.smaller, step.memory_retries, step.lost_retries) == (True, 1, 0)
    killed = next_step(job(smaller=True, memory_retries=1), Ending(how="killed"), SETTINGS)
    assert (killed.smaller, killed.memory_retries, killed.lost_retries) == (True, 1, 1)


def test_where_no_smaller_plan_is_left_memory_is_the_reason() -> None:
    ending = Ending(how="does_not_fit", error=Problem(code="does_not_fit", message="m"))
    step = next_step(job(smaller=True, memory_retries=1, reason="oom_device"), ending, SETTINGS)
    assert (step.state, step.reason) == ("failed", "oom_device")
    assert next_step(job(), ending, SETTINGS).reason == "does_not_fit"


def test_waits_grow_up_to_a_minute() -> None:
    waits = [wait_seconds(n) for n in range(12)]
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (0.5, 60.0)

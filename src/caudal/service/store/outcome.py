"""Writes down what an attempt's end means: for its job, its run and its model. Decides nothing of it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from caudal.service.ends import Ending, Step
from caudal.service.ids import new_id
from caudal.service.records import Job
from caudal.service.states import ENDED
from caudal.service.store import rows
from caudal.service.store import tables as t


def write_down(connection: sa.Connection, job: Job, ending: Ending, step: Step) -> Job:
    """Bring a job whose row is locked where `step` says."""
    now = time.time()
    error = None
    if step.state == "failed" and ending.error is not None:
        error = ending.error.model_dump()
    peak = {
        pool: max(value, job.peak_bytes.get(pool, 0))
        for pool, value in {**job.peak_bytes, **ending.peak_bytes}.items()
    }
    values: dict[str, Any] = {
        "reason": step.reason, "error": error, "next": step.next, "smaller": step.smaller,
        "memory_retries": step.memory_retries, "lost_retries": step.lost_retries,
        "wait_seconds": step.wait_seconds, "peak_bytes": peak, "last_events": ending.last_events,
        "ended": now if step.state in ENDED else None,
    }  # fmt: skip
    if ending.result is not None:
        values["result"] = ending.result
    moved = rows.move(connection, job, step.state, **values)
    assert moved is not None, "the row is locked"
    if step.state in ENDED:
        _end_run(connection, moved, now)
    return rows.job_row(connection, job.id)


def begin_run(connection: sa.Connection, job: Job, folder: Path, task: str | None) -> None:
    """The run of a job that begins, if it has none yet."""
    if connection.execute(sa.select(t.runs.c.id).where(t.runs.c.id == job.id)).first():
        connection.execute(
            sa.update(t.runs).where(t.runs.c.id == job.id).values(folder=str(folder), ended=None)
        )
        return
    values: dict[str, Any] = {
        "id": job.id, "job_id": job.id, "project_id": job.project_id, "verb": job.work.verb,
        "folder": str(folder), "task": task, "metrics": {}, "result": None,
        "created": time.time(), "ended": None,
    }  # fmt: skip
    connection.execute(sa.insert(t.runs).values(**values))


def _end_run(connection: sa.Connection, job: Job, now: float) -> None:
    run = connection.execute(sa.select(t.runs).where(t.runs.c.id == job.id)).mappings().first()
    if run is None:
        return
    metrics = (job.result or {}).get("metrics") or {}
    connection.execute(
        sa.update(t.runs).where(t.runs.c.id == job.id).values(ended=now, result=job.result, metrics=metrics)
    )
    if job.state == "succeeded" and job.work.verb == "train":
        values = {
            "id": new_id(), "run_id": job.id, "project_id": job.project_id,
            "folder": str(Path(run["folder"]) / "model"), "task": run["task"], "metrics": metrics,
            "created": now,
        }  # fmt: skip
        connection.execute(sa.insert(t.models).values(**values))

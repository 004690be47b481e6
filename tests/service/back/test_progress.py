"""How far a job is, whatever its verb: from the events of its process to the summary that is asked for."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from caudal.core.units import Bytes
from caudal.service import summary as summary_module
from caudal.service.records import Project, StoredEvent
from caudal.service.store import Machine, Store
from caudal.service.store.rows import Said
from caudal.service.summary import StatusView, Summaries
from caudal.service.tail import begin_anew
from caudal.service.work import EvaluateWork, ExplainWork, PredictWork, TrainWork
from tests.runs.stored_scenes import pairs, untrained
from tests.service.back.conftest import settings_for
from tests.service.back.house import House


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """One whose jobs are the real command."""
    program = (sys.executable, "-m", "caudal")
    house = House(settings_for(tmp_path / "home", ram="1GiB", program=program))
    try:
        yield house.start()
    finally:
        house.close()


def test_a_prediction_in_the_queue_says_how_far_it_is_and_what_it_holds(house: House, tmp_path: Path) -> None:
    scenes, run = pairs(tmp_path / "scenes", (48, 64), (64, 48)), untrained(tmp_path / "run")
    work = PredictWork(run=str(run), inputs=(str(scenes / "images"),), device="cpu", name="maps")
    job, _new = house.store.jobs.submit(house.project, work)
    house.queue.announce(job.id)
    ended = house.ends(job, 60.0)
    assert (ended.state, ended.error) == ("succeeded", None)
    told = [event for event in house.store.events.after(0, job.id) if event.attempt]
    kinds = [event.kind for event in told if event.kind != "job_state"]
    assert kinds[-1] == "run_ended"
    assert {"scanned", "run_started", "tile_done"} <= set(kinds)
    view = Summaries(house.store).of(ended)
    assert (view.done, view.step, view.steps) == (1.0, 2, 2)
    assert 0 < view.predicted_bytes["ram"] <= view.budget_bytes["ram"] == 2**30
    assert ended.peak_bytes["ram"] > 0
    assert [event["kind"] for event in ended.last_events][-1] == "run_ended"


def test_what_cannot_fit_fails_with_the_least_that_would_before_it_does_anything(
    house: House, tmp_path: Path
) -> None:
    scenes, run = pairs(tmp_path / "scenes", (48, 64)), str(untrained(tmp_path / "run"))
    images, masks = str(scenes / "images"), (str(scenes / "masks"),)
    few = Bytes.parse("64MiB")
    works = (
        PredictWork(run=run, inputs=(images,), device="cpu", ram=few, name="maps"),
        EvaluateWork(run=run, data=(images,), masks=masks, device="cpu", ram=few),
        ExplainWork(run=run, images=images, device="cpu", ram=few),
    )
    jobs = [house.store.jobs.submit(house.project, work)[0] for work in works]
    for job in jobs:
        ended = house.ends(job, 60.0)
        assert (ended.state, ended.reason, ended.attempts) == ("failed", "does_not_fit", 1)
        assert ended.error is not None
        assert re.search(r"needs at least \d.* of ram, and the budget is 64 MiB", ended.error.message)
        assert re.search(r"--ram \d+(\.\d+)?MiB", ended.error.hint)
        kinds = {event.kind for event in house.store.events.after(0, job.id)}
        assert "run_started" not in kinds
        assert [path.name for path in house.settings.run_folder(job.id).iterdir()] == ["events.jsonl"]


@dataclass
class Told:
    """A store that knows events alone."""

    bodies: list[tuple[str, dict[str, Any]]]
    events: Any = field(init=False)

    def __post_init__(self) -> None:
        self.events = self

    def after(self, last: int, job_id: str, _most: int) -> list[StoredEvent]:
        return [
            StoredEvent(id=number, job_id=job_id, attempt=1, kind=kind, time=100.0 + number, body=body)
            for number, (kind, body) in enumerate(self.bodies, 1)
            if number > last
        ]


def summary(*bodies: tuple[str, dict[str, Any]]) -> StatusView:
    job = SimpleNamespace(id="j", seen_event=len(bodies), state="running", reason=None, next="", ended=None)
    return Summaries(Told(list(bodies))).of(job)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["tile_done", "part_done", "picture_step"])
def test_what_is_done_and_left_is_told_of_tiles_samples_and_pictures(kind: str) -> None:
    started = ("run_started", {"total_steps": 8, "predicted_bytes": {"ram": 7}, "budget_bytes": {"ram": 9}})
    read = ("memory_read", {"ram": 5, "vram": None})
    view = summary(started, read, (kind, {"done": 2, "total": 8}))
    assert (view.done, view.step, view.steps) == (0.25, 2, 8)
    assert view.left_seconds == pytest.approx(6.0)  # two took two seconds
    assert (view.ram_bytes, view.predicted_bytes, view.budget_bytes) == (5, {"ram": 7}, {"ram": 9})
    again = summary(started, (kind, {"done": 2, "total": 8}), started)
    assert (again.done, again.step) == (None, None)


def test_what_a_long_job_told_is_summed_up_from_little_of_it(
    store: Store, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.jobs.submit(project.id, TrainWork(task="hold", data=("/data",), ram="100MiB", device="cpu"))
    claimed = store.claims.claim(Machine("here", "place", 2**30, 0, 8))
    assert claimed is not None
    job, attempt = claimed
    said: list[Said] = [("run_started", 1.0, {"total_steps": 900, "predicted_bytes": {"ram": 7}})]
    for step in range(1, 801):
        said.append(("step_done", 1.0 + step, {"step": step, "step_seconds": step / 100, "samples": 2}))
        held = 5 * 2**30 if step == 600 else 2**30
        said.append(("memory_read", 1.0 + step, {"ram": held, "vram": None}))
        if step % 300 == 0:
            said += [
                ("warned", 1.0, {"message": f"at {step}"}),
                ("validated", 1.0, {"metrics": {"iou": step}}),
            ]
    store.claims.take_events(attempt, said, 0, 1)
    job = store.jobs.get(job.id)

    heard = 0
    after, newest = store.events.after, store.events.newest

    def counted(events: list[StoredEvent]) -> list[StoredEvent]:
        nonlocal heard
        heard += len(events)
        return events

    monkeypatch.setattr(store.events, "after", lambda *given: counted(after(*given)))
    monkeypatch.setattr(store.events, "newest", lambda *given: counted(newest(*given)))
    brief = Summaries(store)
    view = brief.of(job)
    assert heard < 700
    assert brief.of(job) == view
    assert heard < 700  # and nothing of it again
    monkeypatch.setattr(summary_module, "_AT_ONCE", 10_000)
    monkeypatch.setattr("caudal.service.store.rows.MOST_A_PAGE", 10_000)
    assert Summaries(store).of(job) == view
    assert (view.step, view.steps, view.metrics, view.peak_ram_bytes) == (800, 900, {"iou": 600}, 5 * 2**30)
    assert view.warnings == ["at 300", "at 600"]


def test_a_second_attempt_leaves_of_the_first_what_it_told(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "maps").mkdir(parents=True)
    (run / "maps" / "half.tif").write_bytes(b"half")
    (run / "map.tif").symlink_to(tmp_path)
    (run / "events.jsonl").write_text("{}\n")
    begin_anew(run)
    assert [path.name for path in run.iterdir()] == ["events.jsonl"]
    begin_anew(tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []

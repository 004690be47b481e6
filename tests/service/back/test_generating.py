"""Pictures as jobs: planned, told step by step, cancelled between steps, found under their seeds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("diffusers")

from caudal.service.records import Job
from caudal.service.work import GenerateWork
from caudal.tasks.generation.request import GenerationRequest
from tests.generation import tiny
from tests.service.back.conftest import settings_for
from tests.service.back.house import House
from tests.service.back.servers import until


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    house = House(settings_for(tmp_path_factory.mktemp("pictures") / "home", ram="3GiB"))
    try:
        yield house.start()
    finally:
        house.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    folder = tmp_path_factory.mktemp("generation")
    face = tiny.save_picture(folder / "face.png", tiny.portrait())
    return {"model": str(tiny.write_model(folder / "model")), "people": (str(face),)}


def submit(house: House, files: dict[str, object], **request: int) -> Job:
    wanted = GenerationRequest(prompt="a man", width=64, height=64, **request)
    work = GenerateWork.model_validate(
        {"request": wanted, "engine": "stand_in", "device": "cpu", "ram": "1400MiB"} | files
    )
    job, _new = house.store.jobs.submit(house.project, work)
    return job


def steps(house: House, job: Job) -> list[tuple[int, int]]:
    events = house.store.events.after(0, job.id)
    return [(e.body["done"], e.body["total"]) for e in events if e.kind == "picture_step"]


def test_pictures_are_made_in_told_steps_and_long_ones_are_cancelled_between_them(
    house: House, files: dict[str, object]
) -> None:
    short, long = submit(house, files, steps=2, count=2, seed=5), submit(house, files, steps=500, count=50)
    until(lambda: steps(house, long), 60, "steps are told")
    house.store.jobs.cancel(long.id)
    ended = house.ends(long, 10.0)
    assert ended.state == "cancelled"
    done, total = steps(house, long)[-1]
    assert 0 < done < total
    ended = house.ends(short, 60.0)
    assert (ended.state, ended.error) == ("succeeded", None)
    assert steps(house, short) == [(n, 4) for n in range(1, 5)]
    told = ended.result
    assert told is not None
    assert "consent" in told["notice"]
    assert set(told["licences"]) == {"model", "identity", "adapter", "faces (stand_in)"}
    run = house.settings.run_folder(short.id)
    assert sorted(path.name for path in (run / "pictures").iterdir()) == ["5.png", "6.png"]
    predicted = json.loads((run / "plan.json").read_text())
    assert predicted["memory"]["holders"]
    assert house.attempt(short).ram_bytes < 1400 * 2**20  # as the plan says, and no more
    assert (
        "a man" not in (house.settings.job_folder(short.id) / "log.txt").read_text()
    )  # a prompt is in no log


@pytest.mark.parametrize("which", ["adapter", "lcm"])
def test_a_pickled_adapter_is_not_opened(tmp_path: Path, files: dict[str, object], which: str) -> None:
    import threading

    from caudal.core.errors import BadModel
    from caudal.core.events import JsonLines
    from caudal.service.generating import make

    evil = tmp_path / "evil.bin"
    evil.write_bytes(b"\x80\x04.")
    work = GenerateWork.model_validate({"request": GenerationRequest(prompt=""), which: str(evil)} | files)
    with pytest.raises(BadModel, match="pickle"):
        make(work, tmp_path, JsonLines(tmp_path / "events.jsonl"), threading.Event())

"""What is asked for is made into work, or refused at once where it is known that it cannot be done."""

from __future__ import annotations

from pathlib import Path

import pytest

from caudal.service.store import Machine
from tests.service.front.conftest import Front


def test_no_longer_time_limit_is_taken_than_the_settings_allow(front: Front) -> None:
    orders = front.app.context.orders
    orders._settings = orders._settings.model_copy(update={"longest_seconds": 3600.0})
    order = {"verb": "pack", "data": {"dataset": front.dataset()["id"]}, "limit_seconds": 3601}
    refused = front.post("/jobs", order)
    assert (refused.status_code, refused.json()["code"]) == (422, "usage")
    assert "3600" in refused.json()["detail"]
    assert front.post("/jobs", order | {"limit_seconds": 3600}).status_code == 201


def test_what_no_machine_can_hold_is_refused_when_it_is_asked_for(front: Front) -> None:
    order = {"verb": "pack", "data": {"dataset": front.dataset()["id"]}, "ram": "2GiB"}
    assert front.post("/jobs", order).status_code == 201  # no machine is there that could say
    front.store.workers.arrive(Machine("here", "this kernel", 2**30, 0, 8), 1, 1, "embedded")
    refused = front.post("/jobs", order)
    assert (refused.status_code, refused.json()["code"]) == (422, "does_not_fit")
    assert "2 GiB" in refused.json()["detail"]
    assert "1 GiB" in refused.json()["detail"]
    assert refused.json()["hint"]
    assert front.post("/jobs", order | {"ram": "1GiB"}).status_code == 201


@pytest.mark.parametrize("key", ["name", "place", "path", "root"])
def test_no_name_holds_a_nul(front: Front, key: str) -> None:
    order = {"name": "fine", "root": "scenes", "path": "roofs"} if key in ("path", "root") else {"name": "x"}
    assert front.post("/datasets", order | {key: "a\0b"}).status_code == 422
    assert front.get("/datasets", params={"place": "/a\0b"}).status_code == 422


def test_a_data_set_is_found_by_its_place(front: Front, root: Path) -> None:
    made = front.dataset("r", root="scenes", path="roofs")
    front.dataset("other", root="scenes")
    found = front.get("/datasets", params={"place": str(root / "roofs")}).json()["items"]
    assert [one["id"] for one in found] == [made["id"]]
    assert front.get("/datasets", params={"place": str(root.parent / "secret.csv")}).status_code == 403


def test_pictures_are_ordered_with_files_of_data_sets_alone(front: Front) -> None:
    data = front.dataset("r", root="scenes", path="roofs")
    face = {"dataset": data["id"], "file": "a.csv"}
    order = {
        "verb": "generate",
        "model": {"dataset": data["id"]},
        "people": [face],
        "prompt": "a “man”\n--out=/",
    }
    made = front.post("/jobs", order | {"lcm": True, "controls": {"canny": face}, "width": 64, "height": 64})
    assert made.status_code == 201, made.text
    job = front.store.jobs.get(made.json()["id"])
    assert job.work.verb == "generate"
    assert (job.work.request.steps, job.work.request.scheduler, job.work.request.width) == (8, "lcm", 64)
    assert job.work.people[0].endswith("roofs/a.csv")
    assert job.work.words(Path("/run")) == ["/run"]
    for wrong in ({"prompt": "a\0b"}, {"width": 63, "height": 64}, {"people": []}, {"model": "/etc"}):
        assert front.post("/jobs", order | wrong).status_code == 422
    gone = front.post("/jobs", order | {"people": [{"dataset": data["id"], "file": "../secret.csv"}]})
    assert gone.status_code == 404


def test_what_is_wrong_is_said_in_words_for_people(front: Front) -> None:
    said = front.get("/jobs/nothing").json()
    assert "26" in said["detail"]
    assert "pattern" not in said["detail"]
    said = front.post("/jobs", {"verb": "bake"}).json()
    assert "bake" in said["detail"]
    assert "'pack'" in said["detail"]

"""What is asked for is made into work, or refused at once where it is known that it cannot be done."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from caudal.core.units import Bytes
from caudal.service import plans
from caudal.service.store import Machine
from tests.service.front.conftest import Front

MIB = 2**20


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
    more = {"lcm": True, "lcm_adapter": face, "identity_end": 0.5, "face_region": True}
    made = front.post("/jobs", order | more | {"controls": {"canny": face}, "width": 64, "height": 64})
    assert made.status_code == 201, made.text
    job = front.store.jobs.get(made.json()["id"])
    assert job.work.verb == "generate"
    assert (job.work.request.steps, job.work.request.scheduler, job.work.request.width) == (8, "lcm", 64)
    assert (job.work.request.identity_end, job.work.request.face_region) == (0.5, True)
    assert job.work.people[0].endswith("roofs/a.csv")
    assert (job.work.lcm or "").endswith("roofs/a.csv")
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


def planned(front: Front, monkeypatch: pytest.MonkeyPatch, **asked: Any) -> dict[str, Any]:
    """A plan for 900 MiB that says 300 MiB, made by nobody."""
    said = {
        "plan": {
            "spec": {"task": "segmentation"}, "device": "cpu", "memory": {"holders": []}, "steps": 1,
            "seconds": 1.0, "samples_per_second": 1.0, "facts": {},
        },
        "budget_bytes": {"ram": 900 * MIB, "vram": 0}, "predicted_bytes": {"ram": 300 * MIB, "vram": 0},
        "levers": {}, "warnings": [],
    }  # fmt: skip
    monkeypatch.setattr(front.app.context.planner, "_said", lambda _spec: said)
    data = front.dataset("r", root="scenes", path="roofs")
    answer = front.post("/plans", {"task": "segmentation", "data": {"dataset": data["id"]}, **asked})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_job_gets_the_budget_of_its_plan_and_is_kept_what_that_says(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(front, monkeypatch)
    made = front.post("/jobs", {"verb": "train", "plan": plan["id"]}).json()
    job = front.store.jobs.get(made["id"])
    assert (job.work.ram, job.granted_ram, job.ram_bytes) == (900 * MIB, 900 * MIB, 300 * MIB)
    other = front.post("/jobs", {"verb": "train", "plan": plan["id"], "ram": "700MiB"}).json()
    job = front.store.jobs.get(other["id"])
    assert (job.work.ram, job.ram_bytes) == (Bytes(700 * MIB), 700 * MIB)


@pytest.mark.parametrize(
    "more", [{"device": "cpu"}, {"seed": 1}, {"task": "segmentation"}, {"spec": {"data": {"threads": 1}}}]
)
def test_what_a_plan_says_already_is_refused_beside_it(
    front: Front, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any]
) -> None:
    plan = planned(front, monkeypatch)
    answer = front.post("/jobs", {"verb": "train", "plan": plan["id"], **more})
    assert answer.status_code == 422
    assert next(iter(more)) in answer.json()["detail"]
    data = {"dataset": front.get("/datasets").json()["items"][0]["id"]}
    assert front.post("/jobs", {"verb": "train", "plan": plan["id"], "data": data}).status_code == 422


def test_a_job_keeps_the_spec_of_its_plan_when_that_is_swept(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = planned(front, monkeypatch)
    made = front.post("/jobs", {"verb": "train", "plan": first["id"]}).json()
    folder = front.app.context.orders.plans
    begun, young = folder / "00000000000000000000000000", folder / "00000000000000000000000001"
    for half in (begun, young):
        half.mkdir()
    os.utime(begun, (0, 0))
    monkeypatch.setattr(plans, "_KEPT", 1)
    data = {"dataset": front.get("/datasets").json()["items"][0]["id"]}
    assert front.post("/plans", {"task": "segmentation", "data": data}).status_code == 201
    assert front.get(f"/plans/{first['id']}").status_code == 404
    assert (begun.exists(), young.exists()) == (False, True)
    spec = front.store.jobs.get(made["id"]).work.spec
    assert spec == front.settings.job_folder(made["id"]) / "spec.toml"
    assert 'task = "segmentation"' in spec.read_text()


def test_what_is_asked_for_again_is_that_job_though_its_plan_is_gone_and_writes_nothing(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(front, monkeypatch)
    order, key = {"verb": "train", "plan": plan["id"]}, {"Idempotency-Key": "k"}
    first = front.post("/jobs", order, headers=key)
    (front.app.context.orders.plans / plan["id"] / "spec.toml").unlink()
    (front.app.context.orders.plans / plan["id"] / "plan.json").unlink()
    again = front.post("/jobs", order, headers=key)
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json()["id"] == first.json()["id"]
    assert front.post("/jobs", order).status_code == 404
    assert front.post("/jobs", order | {"name": "other"}, headers=key).status_code == 409
    assert [folder.name for folder in front.settings.jobs_folder().iterdir()] == [first.json()["id"]]


def test_a_plan_without_a_budget_is_for_the_largest_machine(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    front.store.workers.arrive(Machine("here", "this kernel", 2**30, 0, 8), 1, 1, "embedded")
    plan = planned(front, monkeypatch)
    assert f"ram = {2**30}" in (front.app.context.orders.plans / plan["id"] / "spec.toml").read_text()


def test_plans_and_jobs_are_told_the_folders_that_they_may_read(front: Front, root: Path) -> None:
    (root / "p.csv").write_text("image,mask\nroofs/link.csv,/etc/hostname\n")
    data = {"dataset": front.dataset("r", root="scenes")["id"], "file": "p.csv"}
    answer = front.post("/plans", {"task": "segmentation", "data": data, "device": "cpu"})
    assert (answer.status_code, answer.json()["code"]) == (422, "data")
    assert answer.json()["detail"] == "scenes:roofs/link.csv leads out of the folders that may be read."
    made = front.post("/jobs", {"verb": "train", "task": "segmentation", "data": data}).json()
    assert "reads" not in made["work"]
    work = front.store.jobs.get(made["id"]).work
    assert work.reads == (str(root), str(front.app.context.roots.uploads))


def test_packing_waits_for_no_gpu(front: Front) -> None:
    assert front.store.jobs.get(front.job()["id"]).vram_bytes == 0

"""The API's habits: problems, pages, ETags, idempotency, and what it shows of where things are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from caudal.service.ends import Ending
from caudal.service.store import Machine
from tests.service.front.conftest import Front

NOBODY = "01m80dd1mnjd36ynd00zszxpfv"


def test_every_refusal_is_a_problem_with_a_mend(front: Front) -> None:
    answers = [
        front.http.get("/nothing/here"),
        front.http.post("/livez"),
        front.get("/jobs/nonsense"),
        front.get(f"/jobs/{NOBODY}"),
        front.post("/projects", {"name": 5}),
        front.post("/projects", {"name": "a", "more": 1}),
        front.http.post("/api/v1/projects", content=b"{", headers={"Content-Type": "application/json"}),
        front.http.post("/api/v1/projects", content=b"x" * (2**20 + 1)),
        front.get("/jobs?limit=0"),
        front.get("/jobs?cursor=!!"),
        front.get("/me", headers={"Authorization": "Bearer caudal_wrong"}),
    ]
    assert [a.status_code for a in answers] == [404, 405, 422, 404, 422, 422, 422, 413, 422, 422, 401]
    for answer in answers:
        assert answer.headers["content-type"] == "application/problem+json"
        body = answer.json()
        assert body["status"] == answer.status_code
        assert body["type"] == f"urn:caudal:problem:{body['code']}"
        assert body["detail"]
        assert body["hint"]


def test_a_fault_of_ours_is_a_problem_that_tells_nothing_of_the_machine(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_given: object) -> None:
        raise RuntimeError("/secret/place")

    monkeypatch.setattr(front.store.projects, "list", broken)
    answer = front.get("/projects")
    assert (answer.status_code, answer.json()["code"]) == (500, "fault")
    assert "secret" not in answer.text


def test_a_list_in_pages_is_the_list(front: Front) -> None:
    names = [f"p{number}" for number in range(7)]
    for name in names:
        front.post("/projects", {"name": name})
    found, cursor = [], ""
    while cursor is not None:
        page = front.get(f"/projects?limit=3&cursor={cursor}").json()
        assert len(page["items"]) <= 3
        found += [project["name"] for project in page["items"]]
        cursor = page["next"]
    assert found == names
    assert 'rel="next"' in front.get("/projects?limit=3").headers["link"]


def test_keys_workers_and_tries_come_in_pages(front: Front) -> None:
    job = front.job()
    for number in range(3):
        front.new_key("read")
        front.store.workers.arrive(Machine(f"m{number}", "place", 2**30, 0, 8), 1, 1, "celery")
        claimed = front.store.claims.claim(Machine("m0", "place", 2**30, 0, 8))
        assert claimed is not None
        front.store.claims.end(claimed[1], Ending(how="stopped"), front.settings)
    for path, name, count in (
        ("/keys", "id", 4),
        ("/workers", "id", 3),
        (f"/jobs/{job['id']}/attempts", "number", 3),
    ):
        whole = [one[name] for one in front.get(path).json()["items"]]
        first = front.get(f"{path}?limit=2").json()
        rest = front.get(f"{path}?limit=2&cursor={first['next']}").json()
        assert len(whole) == count
        assert [one[name] for one in first["items"] + rest["items"]] == whole


def test_jobs_come_newest_first_in_pages_and_by_state(front: Front) -> None:
    ids = [front.job()["id"] for _number in range(5)]
    front.post(f"/jobs/{ids[0]}/cancel")
    first = front.get("/jobs?limit=2").json()
    rest = front.get(f"/jobs?limit=100&cursor={first['next']}").json()
    assert [job["id"] for job in first["items"] + rest["items"]] == ids[::-1]
    assert [job["id"] for job in front.get("/jobs?state=cancelled").json()["items"]] == ids[:1]


def test_what_has_not_changed_is_not_sent_again(front: Front) -> None:
    job = front.job()
    path = f"/jobs/{job['id']}"
    for address in (path, "/jobs", f"{path}/status", "/roots", "/openapi.json"):
        first = front.get(address)
        again = front.get(address, headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b""), address
        assert front.get(address, headers={"If-None-Match": '"other"'}).status_code == 200
    tag = front.get(path).headers["etag"]
    front.post(f"{path}/cancel")
    changed = front.get(path, headers={"If-None-Match": tag})
    assert (changed.status_code, changed.json()["state"]) == (200, "cancelled")


def test_the_same_request_twice_is_done_once(front: Front) -> None:
    key = {"Idempotency-Key": "mine-1"}
    first = front.job(headers=key)
    again = front.job(headers=key)
    assert first["id"] == again["id"]
    assert len(front.get("/jobs").json()["items"]) == 1
    assert front.queue.told == [first["id"]]
    project = [front.post("/projects", {"name": "p"}, headers={"Idempotency-Key": "k"}) for _n in range(2)]
    assert project[0].json()["id"] == project[1].json()["id"]
    assert project[1].headers["Idempotency-Replayed"] == "true"
    assert front.post("/projects", {"name": "q"}, headers={"Idempotency-Key": "k"}).status_code == 409


def test_a_job_is_submitted_cancelled_and_retried(front: Front) -> None:
    job = front.job()
    assert (job["state"], job["verb"], job["attempts"]) == ("queued", "pack", 0)
    assert front.post(f"/jobs/{job['id']}/retry").status_code == 409
    assert front.post(f"/jobs/{job['id']}/cancel").json()["state"] == "cancelled"
    assert front.post(f"/jobs/{job['id']}/cancel").status_code == 409
    assert front.post(f"/jobs/{job['id']}/retry?smaller=true").json()["state"] == "queued"
    assert front.queue.told == [job["id"], job["id"]]
    assert front.get(f"/jobs/{job['id']}/attempts").json() == {"items": [], "next": None}
    assert front.get(f"/jobs/{job['id']}/log").status_code == 404
    kinds = [event["kind"] for event in front.get(f"/jobs/{job['id']}/events").json()["items"]]
    assert kinds == ["job_state"] * 3


def test_a_training_is_submitted_with_a_spec_that_names_no_path(front: Front) -> None:
    data = {"dataset": front.dataset("roofs", root="scenes", path="roofs")["id"]}
    body = {"verb": "train", "task": "segmentation", "data": data, "spec": {"training": {"steps": 5}}}
    answer = front.post("/jobs", body)
    assert answer.status_code == 201, answer.text
    job = front.store.jobs.get(answer.json()["id"])
    spec = Path(job.work.spec).read_text()  # type: ignore[union-attr, arg-type]
    assert "steps = 5" in spec
    assert "scenes/roofs" in spec
    wrong = [
        {"spec": {"model": {"name": "backbone", "config": {"source": "/etc"}}}},
        {"spec": {"model": {"name": "backbone", "config": {"source": "scenes/../secret"}}}},
        {"spec": {"model": {"name": "unet", "config": {"any": "/etc/passwd"}}}},
        {"spec": {"data": {"images": ["/etc"]}}},
        {"spec": {"data": {"target": "../../x"}}},
        {"spec": {"training": {"nonsense": 1}}},
        {"labels": {"dataset": data["dataset"], "file": "../secret.csv"}},
        {"labels": {"dataset": data["dataset"], "file": "link.csv"}},
    ]
    assert {front.post("/jobs", {**body, **more}).status_code for more in wrong} <= {404, 422}


def test_nothing_that_is_shown_says_where_the_server_keeps_it(front: Front, tmp_path: Path) -> None:
    front.dataset("roofs", root="scenes", path="roofs")
    front.dataset("own")
    job = front.job()
    texts = [
        front.get(path).text
        for path in (
            "/datasets",
            "/jobs",
            f"/jobs/{job['id']}",
            f"/jobs/{job['id']}/status",
            "/roots",
            "/runs",
        )
    ]
    assert not [text for text in texts if str(tmp_path) in text]
    assert "scenes:roofs" in texts[0]


def test_it_says_when_it_cannot_work(front: Front) -> None:
    assert front.http.get("/livez").json()["status"] == "ok"
    assert front.http.get("/readyz").status_code == 200
    front.queue.wrong = "The broker is away."
    answer = front.http.get("/readyz")
    assert (answer.status_code, answer.json()["detail"]) == (503, "The broker is away.")
    assert front.http.get("/livez").status_code == 200


def test_figures_count_requests_by_address_and_jobs_by_state(front: Front) -> None:
    front.job()
    front.get("/jobs")
    text = front.http.get("/metrics").text
    assert 'caudal_jobs{state="queued"} 1.0' in text
    assert 'route="/api/v1/jobs",status="200"' in text


def test_a_project_with_jobs_stays(front: Front) -> None:
    job = front.job()
    assert front.http.delete(f"/api/v1/projects/{job['project']}").status_code == 409
    made = front.post("/projects", {"name": "empty"}).json()
    renamed = front.http.patch(f"/api/v1/projects/{made['id']}", json={"name": "other"})
    assert renamed.json()["name"] == "other"
    assert front.http.delete(f"/api/v1/projects/{made['id']}").status_code == 204
    assert front.get(f"/projects/{made['id']}").status_code == 404


def test_the_document_is_openapi_3_1_and_names_a_problem_for_every_refusal(front: Front) -> None:
    document = front.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    bare = [
        (path, method, status)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        for status, answer in operation["responses"].items()
        if int(status) >= 400 and list(answer.get("content", {})) != ["application/problem+json"]
    ]
    assert bare == []
    assert "HTTPValidationError" not in json.dumps(document)

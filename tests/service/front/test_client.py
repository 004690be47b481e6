"""The client against a server that really listens: what it asks is done, and lost answers do no harm."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from caudal.cli import jobs as verbs
from caudal.cli.exits import DATA, DONE, INTERRUPTED, MEMORY, OTHER, TIME
from caudal.client import AsyncClient, Client, Job
from caudal.client.calls import as_error
from caudal.core.errors import CaudalError, DoesNotFit, UsageError
from caudal.service import views
from tests.service.front.conftest import Front


def test_what_the_client_asks_is_done(served: tuple[Front, str], root: Path, tmp_path: Path) -> None:
    front, url = served
    with Client(url, front.key) as client:
        project = client.create_project("mine")
        dataset = client.create_dataset("roofs", str(root / "roofs"), project.id)
        assert dataset.place == "scenes:roofs"
        own = client.create_dataset("own")
        (tmp_path / "ñ.csv").write_text("a,b\n")
        assert client.send(own.id, tmp_path / "ñ.csv", "images/ñ.csv").bytes == 4
        job = client.submit({"verb": "pack", "data": {"dataset": dataset.id}}, key="once")
        assert client.submit({"verb": "pack", "data": {"dataset": dataset.id}}, key="once").id == job.id
        assert [one.id for one in client.jobs("queued")] == [job.id]
        assert client.status(job.id).state == "queued"
        assert client.wait(job.id, 0).state == "queued"
        assert client.log(job.id) == b""
        assert client.cancel(job.id).state == "cancelled"
        assert client.wait(job.id).has_ended
        assert [event.body["state"] for event in client.events(job.id)] == ["queued", "cancelled"]
        assert list(client.events(job.id, after=2)) == []
        assert client.retry(job.id, smaller=True).state == "queued"
        assert {one.name for one in client.datasets()} == {"roofs", "own"}


def test_the_other_client_says_the_same(served: tuple[Front, str], root: Path) -> None:
    front, url = served

    async def story() -> None:
        async with AsyncClient(url, front.key) as client:
            dataset = await client.create_dataset("roofs", str(root / "roofs"))
            sent = await client.create_dataset("own")
            assert (await client.send(sent.id, root / "roofs" / "a.csv")).bytes == 8
            job = await client.submit({"verb": "pack", "data": {"dataset": dataset.id}})
            assert [one.id async for one in client.jobs()] == [job.id]
            assert (await client.cancel(job.id)).state == "cancelled"
            assert (await client.wait(job.id)).has_ended
            assert (await client.job(job.id)).state == (await client.status(job.id)).state
            states = [event.body["state"] async for event in client.events(job.id)]
            assert states == ["queued", "cancelled"]
            assert (await client.retry(job.id)).state == "queued"
            assert (await client.wait(job.id, 0)).state == "queued"
            assert [one.id async for one in client.datasets(str(root / "roofs"))] == [dataset.id]
            assert await client.log(job.id) == b""

    asyncio.run(story())


def test_refusals_are_the_errors_of_the_command_line(served: tuple[Front, str]) -> None:
    front, url = served
    with Client(url, front.key) as client:
        with pytest.raises(UsageError, match="wrong"):
            client.job("nonsense")
        with pytest.raises(UsageError):
            client.submit({"verb": "nonsense"})
    with Client(url, "caudal_wrong") as client, pytest.raises(UsageError, match="key"):
        list(client.jobs())
    said = {"code": "does_not_fit", "detail": "It does not fit.", "hint": "Give more."}
    assert isinstance(as_error(422, json.dumps(said)), DoesNotFit)
    assert type(as_error(500, "<html>")) is CaudalError


def test_without_a_service_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("caudal.client.sync.FIRST_PAUSE_SECONDS", 0.0)
    with Client("http://127.0.0.1:9", "x") as client, pytest.raises(CaudalError, match="No service answers"):
        client.job("x")


def test_the_token_of_this_machine_is_sent_to_this_machine_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAUDAL_HOME", str(tmp_path))
    monkeypatch.delenv("CAUDAL_URL", raising=False)
    monkeypatch.delenv("CAUDAL_TOKEN", raising=False)
    (tmp_path / "client.json").write_text('{"url": "http://127.0.0.1:5", "token": "own"}')
    assert Client()._token == "own"
    assert Client("http://127.0.0.1:5/")._token == "own"
    assert Client("http://elsewhere.example")._token == ""


def test_the_client_knows_nothing_that_the_service_does_not_show() -> None:
    from caudal import client

    pairs = [
        (client.Job, views.JobView), (client.Project, views.ProjectView), (client.Dataset, views.DatasetView),
        (client.Event, views.EventView), (client.Wrong, views.WrongView),
    ]  # fmt: skip
    for ours, theirs in pairs:
        assert set(ours.model_fields) <= set(theirs.model_fields)


def test_an_exit_code_says_how_a_job_ended(front: Front) -> None:
    job = Job.model_validate(front.job())

    def code(state: str, reason: str | None = None) -> int:
        return verbs.ending(job.model_copy(update={"state": state, "reason": reason}))

    assert code("succeeded") == DONE
    assert code("cancelled") == INTERRUPTED
    assert [code("failed", reason) for reason in ("oom_host", "oom_device", "timeout", "data", "killed")] == [
        MEMORY, MEMORY, TIME, DATA, OTHER,
    ]  # fmt: skip


def test_the_verbs_speak_to_the_service(
    served: tuple[Front, str], root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from typer.testing import CliRunner

    from caudal.cli.main import app

    front, url = served
    monkeypatch.setenv("CAUDAL_URL", url)
    monkeypatch.setenv("CAUDAL_TOKEN", front.key)

    def run(*words: str) -> tuple[int, dict[str, object]]:
        done = CliRunner().invoke(app, ["jobs", *words, "--json"])
        return done.exit_code, json.loads(done.stdout.strip().splitlines()[-1])

    code, said = run("submit", "pack", str(root / "roofs"), "--name", "mine")
    assert code == DONE, said
    job = said["job"]["id"]  # type: ignore[index]
    assert run("list")[1]["jobs"][0]["id"] == job  # type: ignore[index]
    assert run("cancel", job)[1]["job"]["state"] == "cancelled"  # type: ignore[index]
    assert run("show", job, "--wait")[0] == INTERRUPTED
    assert run("logs", job) == (DONE, {"verb": "jobs", "job": job, "bytes": 0})
    assert run("retry", job)[1]["job"]["state"] == "queued"  # type: ignore[index]
    code, said = run("show", "nonsense")
    assert code == 2
    assert said["error"]["code"] == "usage"  # type: ignore[index]


def test_what_is_submitted_by_a_verb_is_what_the_interface_takes(
    front: Front, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pydantic import TypeAdapter
    from typer.testing import CliRunner

    from caudal.cli.main import app
    from caudal.service.asks import NewJob

    ident, orders, job = "01m80dd1mnjd36ynd00zszxpfv", list[Any](), Job.model_validate(front.job())

    def submit(_client: Client, order: dict[str, Any], _key: str | None) -> Job:
        orders.append({name: value for name, value in order.items() if value is not None})
        return job

    monkeypatch.setattr(Client, "submit", submit)

    def run(*words: str) -> int:
        return CliRunner().invoke(app, ["jobs", "submit", *words, "--url", "http://localhost:1"]).exit_code

    every = ["--project", ident, "--name", "x", "--ram", "1GiB"]
    truth = ["--masks", ident, "--labels", ident]
    assert run("train", ident, "--task", "segmentation", *truth, *every, "--seed", "1") == DONE
    assert run("train", "--plan", ident, *every) == DONE
    assert run("predict", ident, "--run", ident, "--scores", *every) == DONE
    assert run("evaluate", ident, "--run", ident, *truth, *every) == DONE
    assert (
        run("explain", ident, "--run", ident, *truth, "--method", "gradcam", "--method", "occlusion") == DONE
    )
    assert run("pack", ident, *every) == DONE
    taken = [TypeAdapter(NewJob).validate_python(order) for order in orders]
    assert [one.verb for one in taken] == ["train", "train", "predict", "evaluate", "explain", "pack"]
    assert orders[0]["labels"] == orders[0]["masks"] == {"dataset": ident}
    assert (orders[1]["plan"], orders[2]["scores"], orders[3]["project"]) == (ident, True, ident)
    assert orders[4]["method"] == ["gradcam", "occlusion"]
    wrong = [
        ["pack"],
        ["train", ident, "--plan", ident],
        ["predict", "--plan", ident],
        ["pack", ident, "--scores"],
    ]
    assert {run(*words) for words in wrong} == {2}

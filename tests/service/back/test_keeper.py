"""What is seen of workers elsewhere, by a clock that no wall clock can move."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from caudal.core.errors import WorkerDied
from caudal.service.ends import Ending
from caudal.service.keeper import LEASES, Keeper
from caudal.service.place import began, place
from caudal.service.records import Attempt, Job, Once, Project
from caudal.service.settings import Settings
from caudal.service.store import Machine, Store, Superseded, open_store
from caudal.service.work import TrainWork
from caudal.service.worker import check_worker
from tests.service.back.conftest import settings_for

WORK = TrainWork(task="hold", data=("/data",), ram="100MiB", device="cpu")
ELSEWHERE = Machine("there", "another kernel", 2**30, 0, 8)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keeper(store: Store, settings: Settings, clock: Clock) -> Keeper:
    return Keeper(store, settings, clock)


def run(store: Store, project: Project, machine: Machine = ELSEWHERE) -> tuple[Job, Attempt]:
    store.jobs.submit(project.id, WORK)
    claimed = store.claims.claim(machine)
    assert claimed is not None
    tick = began(os.getpid())
    assert tick is not None
    _job, attempt = store.claims.register(claimed[1].id, os.getpid(), tick)
    return store.claims.running(attempt, Path("/run")), attempt


def test_silence_is_out_of_reach_after_one_lease_and_lost_after_three(
    store: Store,
    project: Project,
    keeper: Keeper,
    clock: Clock,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job, _attempt = run(store, project)
    keeper.look()
    began_at, seen = clock.now, []
    jump = [0.0]
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + jump[0])
    while store.jobs.get(job.id).attempts and len(seen) < 100:
        clock.now += settings.lease_seconds / 4
        jump[0] = -jump[0] * 1.5 + 1e6  # the wall clock jumps about, by days
        keeper.look()
        seen.append((clock.now - began_at, store.jobs.get(job.id).state))
        if seen[-1][1] == "waiting":
            break
    lease = settings.lease_seconds
    assert [state for at, state in seen if at < lease] == ["running"] * 3
    assert {state for at, state in seen if lease <= at < LEASES * lease} == {"unreachable"}
    assert seen[-1] == (LEASES * lease, "waiting")
    job = store.jobs.get(job.id)
    assert job.reason == "worker_lost"
    clock.now += 60
    keeper.look()
    keeper.look()
    assert store.jobs.get(job.id).state == "queued"


def test_who_is_heard_of_again_runs_on_and_was_never_failed(
    store: Store, project: Project, keeper: Keeper, clock: Clock, settings: Settings
) -> None:
    job, attempt = run(store, project)
    for _ in range(3):
        keeper.look()
        clock.now += settings.lease_seconds * 1.1
        keeper.look()
        assert store.jobs.get(job.id).state == "unreachable"
        assert store.claims.beat(attempt).state == "running"
    assert store.claims.end(attempt, Ending(how="succeeded"), settings) is not None
    assert store.jobs.get(job.id).state == "succeeded"


def test_who_was_given_up_and_wakes_hears_that_it_lost(
    store: Store, project: Project, keeper: Keeper, clock: Clock, settings: Settings
) -> None:
    job, attempt = run(store, project)
    keeper.look()
    clock.now += LEASES * settings.lease_seconds
    keeper.look()
    assert store.jobs.get(job.id).state == "waiting"
    with pytest.raises(Superseded):
        store.claims.beat(attempt)
    assert store.claims.end(attempt, Ending(how="succeeded"), settings) is None


def test_a_cancelled_job_out_of_reach_is_cancelled_when_it_is_given_up(
    store: Store, project: Project, keeper: Keeper, clock: Clock, settings: Settings
) -> None:
    job, _attempt = run(store, project)
    keeper.look()
    clock.now += settings.lease_seconds
    keeper.look()
    assert store.jobs.cancel(job.id).state == "unreachable"
    clock.now += 2 * settings.lease_seconds
    keeper.look()
    assert store.jobs.get(job.id).state == "cancelled"


def test_on_this_machine_processes_count_and_silence_does_not(
    store: Store, project: Project, keeper: Keeper, clock: Clock, settings: Settings
) -> None:
    job, attempt = run(store, project, Machine("here", place(), 2**30, 0, 8))
    for _ in range(5):
        clock.now += 100 * settings.lease_seconds
        keeper.look()
    assert store.jobs.get(job.id).state == "running"
    # Another process of the same number is not the one that was there.
    from caudal.service.store import tables as t

    with store.database.writing() as connection:
        connection.execute(t.attempts.update().values(pid_began=attempt.pid_began + 1))  # type: ignore[operator]
    keeper.look()
    assert store.jobs.get(job.id).state == "waiting"


def test_an_end_that_did_not_reach_the_store_is_found_beside_the_run(
    store: Store, project: Project, keeper: Keeper, settings: Settings
) -> None:
    from caudal.service.attempt import ending_file
    from caudal.service.store import tables as t

    job, attempt = run(store, project, Machine("here", place(), 2**30, 0, 8))
    note = ending_file(settings.job_folder(job.id), attempt)
    note.parent.mkdir(parents=True)
    note.write_text(Ending(how="disk_full").model_dump_json())
    with store.database.writing() as connection:
        connection.execute(t.attempts.update().values(pid_began=1))
    keeper.look()
    job = store.jobs.get(job.id)
    assert (job.state, job.reason) == ("failed", "disk_full")


def test_a_claim_without_a_supervisor_goes_back_in_line(
    store: Store, project: Project, keeper: Keeper, clock: Clock
) -> None:
    job, _new = store.jobs.submit(project.id, WORK)
    assert store.claims.claim(Machine("here", place(), 2**30, 0, 8)) is not None
    keeper.look()
    assert store.jobs.get(job.id).state == "starting"
    clock.now += 60
    keeper.look()
    job = store.jobs.get(job.id)
    assert (job.state, job.lost_retries) == ("queued", 0)


def test_what_one_machine_can_never_hold_is_refused_with_the_reason(tmp_path: Path) -> None:
    from caudal.service.store import open_store

    settings = settings_for(tmp_path)
    with open_store(settings) as store:
        project = store.projects.create("one")
        large, _new = store.jobs.submit(project.id, WORK, ram_bytes=2**40)
        keeper = Keeper(store, settings)
        keeper.look()
        assert store.jobs.get(large.id).state == "queued"  # nobody is there yet who could say
        store.workers.arrive(ELSEWHERE, 1, 1, "embedded")
        keeper.look()
        job = store.jobs.get(large.id)
        assert (job.state, job.reason, job.error and job.error.code) == (
            "failed",
            "does_not_fit",
            "does_not_fit",
        )


def test_workers_that_are_not_heard_of_are_away_and_then_gone(
    store: Store, keeper: Keeper, clock: Clock, settings: Settings
) -> None:
    worker = store.workers.arrive(ELSEWHERE, 1, 1, "celery")
    states = []
    for _ in range(4):
        keeper.look()
        states.append([one.state for one in store.workers.list(all=True)])
        clock.now += settings.lease_seconds
    assert states == [["here"], ["away"], ["away"], ["gone"]]
    store.workers.beat(worker.id)
    assert [one.state for one in store.workers.list()] == ["here"]


def test_a_worker_is_well_while_its_word_reaches_the_store(settings: Settings) -> None:
    with open_store(settings) as store:
        with pytest.raises(WorkerDied, match="here"):
            check_worker(settings, lambda _seconds: None)
        arrived = store.workers.arrive(Machine("here", "place", 2**30, 0, 8), 1, 1, "celery")
        with pytest.raises(WorkerDied):
            check_worker(settings, lambda _seconds: None)  # it hangs: its row alone says nothing
        check_worker(settings, lambda _seconds: store.workers.beat(arrived.id))


def test_what_is_old_is_forgotten_and_nothing_of_jobs_that_go_on(
    store: Store, project: Project, settings: Settings, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = Keeper(store, settings, clock)
    first, _new = store.jobs.submit(project.id, WORK, once=Once(owner="me", key="k", fingerprint="f"))
    ended = store.jobs.cancel(first.id)
    goes_on, _attempt = run(store, project)
    store.audit.add("me", "POST 201")
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 31 * 86400)
    keeper.look()
    assert store.once.get("me", "k") is not None  # not at once: servers may be started often
    clock.now += 61
    keeper.look()
    assert store.once.get("me", "k") is None
    assert (len(store.audit.list()), len(store.events.after(0, ended.id))) == (1, 2)
    monkeypatch.setattr(time, "time", lambda: real() + 366 * 86400)
    store.audit.add("me", "GET 401")
    clock.now += 3601
    keeper.look()
    assert [entry.action for entry in store.audit.list()] == ["GET 401"]
    assert store.events.after(0, ended.id) == []
    assert store.events.after(0, goes_on.id)[0].body["state"] == "queued"
    assert store.jobs.get(ended.id).state == "cancelled"

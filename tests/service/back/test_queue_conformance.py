"""What every queue promises, `embedded` and `celery` alike: the same tests, on real processes and servers."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.back.conftest import settings_for
from tests.service.back.house import House, alive, kill
from tests.service.back.servers import Redis, until

SLOW = 3.0  # other tests share the processors


@pytest.fixture(scope="module", params=["embedded", "celery"])
def house(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    home = tmp_path_factory.mktemp(request.param) / "home"
    redis = None
    if request.param == "celery":
        redis = Redis().start()
        settings = settings_for(home, queue="celery", broker=redis.url, celery_workers=2)
    else:
        settings = settings_for(home)
    house = House(settings)
    house.redis = redis  # type: ignore[attr-defined]
    try:
        yield house.start()
    finally:
        house.close()
        if redis is not None:
            redis.kill()


def test_a_job_runs_to_its_end_and_tells_all_of_it_once(house: House) -> None:
    house.ends(house.submit("hold", "0"))  # whatever is loaded late is loaded now
    began = time.monotonic()
    job = house.submit("hold", "1")
    house.reaches(job, "running", "succeeded")
    started = time.monotonic() - began
    job = house.ends(job)
    assert (job.state, job.reason, job.attempts) == ("succeeded", None, 1)
    assert job.result == {"verb": "train", "metrics": {"iou": 0.5, "nothing": None}, "steps": 10}
    assert house.steps(job) == list(range(1, 11))
    told = [e.body["state"] for e in house.store.events.after(0, job.id) if e.kind == "job_state"]
    assert told == ["queued", "starting", "running", "succeeded"]
    assert started < 2.0 * SLOW
    words = house.starts(job)[0].split()
    assert "--ram=104857600" in words


def test_what_one_machine_holds_together_stays_in_its_budget(house: House) -> None:
    jobs = [house.submit("hold", "0.6", ram_bytes=600 * 2**20) for _ in range(3)]
    most = 0
    while any(house.get(job).state != "succeeded" for job in jobs):
        most = max(most, sum(attempt.ram_bytes for attempt in house.store.claims.open_attempts()))
        time.sleep(0.02)
    assert most == 600 * 2**20
    starts = [house.store.jobs.attempts(job.id)[0].started for job in jobs]
    assert starts == sorted(starts)


def test_a_cancelled_job_writes_its_checkpoint_and_is_gone(house: House) -> None:
    job = house.submit("hold", "60")
    pid = house.works(job)
    assert house.store.jobs.cancel(job.id).state == "cancelling"
    ended = house.ends(job, 10.0)
    assert (ended.state, ended.reason, alive(pid)) == ("cancelled", None, False)
    again = house.store.jobs.retry(job.id)
    house.queue.announce(job.id)
    assert again.state == "queued"
    steps = len(house.steps(job))
    house.works(job, steps + 2)
    house.store.jobs.cancel(job.id)
    house.ends(job, 10.0)
    assert house.steps(job) == list(range(1, len(house.steps(job)) + 1))


def test_a_deaf_job_is_killed_with_all_its_processes_in_ten_seconds(house: House) -> None:
    job = house.submit("deaf", "60")
    pid = house.works(job)
    child = int((house.settings.job_folder(job.id) / "child").read_text())
    began = time.monotonic()
    house.store.jobs.cancel(job.id)
    assert house.ends(job, 15.0).state == "cancelled"
    assert time.monotonic() - began < 10.0
    assert not alive(pid)
    assert not alive(child)


def test_a_job_in_line_is_cancelled_at_once(house: House) -> None:
    large = house.submit("hold", "60", ram_bytes=900 * 2**20)
    house.reaches(large, "running")
    job = house.submit("hold", "60", ram_bytes=900 * 2**20)
    assert house.store.jobs.cancel(job.id).state == "cancelled"
    house.store.jobs.cancel(large.id)
    house.ends(large)
    assert house.starts(job) == []


def test_a_time_limit_fires_whether_or_not_the_work_heeds_it(house: House) -> None:
    heeds = house.submit("hold", "60", limit_seconds=1.0)
    house.reaches(heeds, "running", "failed")
    began = time.monotonic()
    ended = house.ends(heeds, 20.0)
    assert (ended.state, ended.reason) == ("failed", "timeout")
    assert time.monotonic() - began < 1.0 + 5.0
    used_up = house.store.jobs.get(heeds.id)
    assert used_up.error is not None
    assert used_up.error.code == "timeout"


def test_killed_work_goes_on_where_it_was(house: House) -> None:
    job = house.submit("hold", "1.5")
    os.kill(house.works(job, 3), signal.SIGKILL)
    ended = house.ends(job)
    assert (ended.state, ended.attempts) == ("succeeded", 2)
    assert [attempt.reason for attempt in house.store.jobs.attempts(job.id)] == ["killed", None]
    assert house.store.jobs.attempts(job.id)[0].signal == signal.SIGKILL
    assert house.steps(job) == list(range(1, 16))


def test_a_killed_supervisor_is_noticed_and_its_work_ends_before_it_runs_again(house: House) -> None:
    job = house.submit("hold", "1.5")
    pid = house.works(job, 3)
    killed = time.monotonic()
    kill(house.attempt(job))
    house.reaches(job, "waiting", "queued", "starting", "running", "succeeded")
    until(lambda: house.get(job).attempts == 2, what="a second attempt")
    assert time.monotonic() - killed < 5.0
    assert not alive(pid)
    ended = house.ends(job)
    assert ended.state == "succeeded"
    assert [attempt.reason for attempt in house.store.jobs.attempts(job.id)] == ["worker_lost", None]
    assert house.steps(job) == list(range(1, 16))


def test_what_is_killed_again_and_again_is_named_and_can_be_retried(house: House) -> None:
    job = house.submit("die", "9")
    ended = house.ends(job, 40.0)
    assert (ended.state, ended.reason) == ("failed", "killed")
    assert len(house.starts(job)) == 1 + house.settings.lost_retries
    assert house.store.jobs.retry(job.id).state == "queued"
    house.queue.announce(job.id)
    house.store.jobs.cancel(job.id)
    house.ends(job)


@pytest.mark.parametrize(
    ("task", "reason", "starts"),
    [
        (("say", "disk_full"), "disk_full", 1),
        (("say", "unreadable_file"), "data", 1),
        (("say", "does_not_fit"), "does_not_fit", 1),
        (("crash", "OSError: [Errno 28] No space left on device"), "disk_full", 1),
        (("crash", "what nobody has thought of"), "error", 1),
        (("die", "11"), "error", 1),
    ],
)
def test_an_end_has_its_name_and_its_mend(
    house: House, task: tuple[str, ...], reason: str, starts: int
) -> None:
    job = house.ends(house.submit(*task))
    assert (job.state, job.reason, len(house.starts(job))) == ("failed", reason, starts)
    assert job.error is not None
    assert job.error.message
    assert job.next


def test_what_does_not_fit_as_it_is_is_planned_before_it_is_let_in(house: House) -> None:
    large = house.submit("hold", "60", ram="700MiB")
    house.works(large)
    small = house.submit("weigh", str(50 * 2**20), "0", ram="900MiB")
    never = house.submit("weigh", str(950 * 2**20), "0", ram="900MiB")
    assert house.ends(small).state == "succeeded"
    ended = house.ends(never)
    assert (ended.state, ended.reason, ended.attempts) == ("failed", "does_not_fit", 0)
    assert ended.error is not None
    assert "--ram" in ended.error.hint
    assert house.get(large).state == "running"
    assert house.attempt(small).ram_bytes == 50 * 2**20
    house.store.jobs.cancel(large.id)
    house.ends(large)


def test_want_of_memory_is_answered_by_a_smaller_plan(house: House) -> None:
    job = house.ends(house.submit("say", "out_of_memory"))
    assert (job.state, job.reason) == ("failed", "oom_host")
    smaller = [line.split()[1] for line in house.starts(job)]
    assert [word == "1" for word in smaller] == [False, True, True]


def test_a_killed_worker_leaves_its_jobs_running_and_finds_them_again(house: House) -> None:
    job = house.submit("hold", "4")
    pid = house.works(job, 2)
    if house.worker is not None:
        os.killpg(house.worker.pid, signal.SIGKILL)
        house.worker.wait()
        for process in celery_processes(house):
            os.kill(process, signal.SIGKILL)
        house.start_worker()
    else:
        worker = house.store.workers.list()[0]
        os.kill(worker.pid, signal.SIGKILL)
    later = house.submit("hold", "0")
    assert house.ends(later, 40.0).state == "succeeded"
    ended = house.ends(job, 20.0)
    assert (ended.state, ended.attempts) == ("succeeded", 1)
    assert house.steps(job) == list(range(1, 41))
    assert not alive(pid)


def celery_processes(house: House) -> list[int]:
    """Those of this house; supervisors are copies of them with another name."""
    mark = str(house.settings.home).encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words, env = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
                name = (entry / "comm").read_text().strip()
            except OSError:
                continue
            if b"celery_app" in words and mark in env and name != "caudal-attempt":
                found.append(int(entry.name))
    return found


def test_a_broker_that_forgets_everything_or_is_away_loses_no_job(house: House) -> None:
    if house.redis is None:  # type: ignore[attr-defined]
        assert house.queue.trouble() == ""
        return
    redis: Redis = house.redis  # type: ignore[attr-defined]
    running = house.submit("hold", "5")
    house.works(running, 2)
    blocks = house.submit("hold", "0", ram_bytes=1000 * 2**20)
    redis.client().flushall()
    redis.kill()
    assert house.queue.trouble()
    unheard = house.submit("hold", "0")  # nobody can be told
    redis.start()
    for job in (running, blocks, unheard):
        ended = house.ends(job, 60.0)
        assert (ended.state, len(house.starts(job))) == ("succeeded", 1)
    assert house.queue.trouble() == ""


def test_stopping_sends_jobs_back_in_line_and_starting_goes_on_with_them(house: House) -> None:
    job = house.submit("hold", "3")
    pid = house.works(job, 2)
    house.stop()
    stopped = house.get(job)
    assert (stopped.state, alive(pid)) == ("queued", False)
    assert house.attempt(job).reason == "stopped"
    assert house.store.claims.open_attempts() == []
    house.start()
    ended = house.ends(job)
    assert (ended.state, ended.lost_retries, ended.attempts) == ("succeeded", 0, 2)
    assert house.steps(job) == list(range(1, 31))

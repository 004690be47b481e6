"""One attempt under a real supervisor, where the world around it fails."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from caudal.core.units import Bytes
from caudal.service import fence
from caudal.service.ends import Ending
from caudal.service.errors import StoreAway
from caudal.service.place import began
from caudal.service.stopping import Stopping
from caudal.service.work import NICENESS, EvaluateWork, ExplainWork, PackWork, PredictWork, TrainWork, Work
from tests.data.sets import write_tiff
from tests.service.back.conftest import settings_for
from tests.service.back.house import House, alive
from tests.service.back.servers import until


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    house = House(settings_for(tmp_path_factory.mktemp("service") / "home"))
    try:
        yield house.start()
    finally:
        house.close()


def test_work_goes_on_while_the_store_is_away_and_its_end_is_told_later(house: House) -> None:
    job = house.submit("hold", "1.5")
    house.works(job, 2)
    lock = sqlite3.connect(house.settings.home / "caudal.db", isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    try:
        until(lambda: (house.settings.job_folder(job.id) / "ending-1.json").exists(), what="the end is noted")
    finally:
        lock.execute("ROLLBACK")
        lock.close()
    ended = house.ends(job)
    assert (ended.state, ended.attempts) == ("succeeded", 1)
    assert house.steps(job) == list(range(1, 16))


def test_a_plan_that_needs_more_than_was_kept_free_waits_until_there_is_so_much(house: House) -> None:
    long = house.submit("hold", "60", ram="700MiB")
    house.works(long)
    job = house.submit("swell", str(500 * 2**20), "60", ram="600MiB", ram_bytes=200 * 2**20)
    until(
        lambda: house.get(job).attempts == 1 and house.get(job).state == "queued", what="it is in line again"
    )
    assert house.get(job).ram_bytes == 500 * 2**20
    assert house.get(long).state == "running"
    house.store.jobs.cancel(long.id)
    until(lambda: house.get(job).attempts == 2 and house.get(job).state == "running", what="it goes on")
    assert house.attempt(job).ram_bytes == 500 * 2**20
    house.store.jobs.cancel(job.id)
    assert house.ends(job).state == "cancelled"


def test_a_job_reads_its_folders_alone_whatever_its_data_name(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    write_tiff(tmp_path / "out" / "a.tif", np.ones((8, 8, 1), np.uint8))
    table = tmp_path / "root" / "p.csv"
    table.write_text("image,mask\n../out/a.tif,../out/a.tif\n")
    house = House(settings_for(tmp_path / "home", program=(sys.executable, "-m", "caudal"), ram="2GiB"))
    try:
        house.start()
        bounds = (str(tmp_path / "root"),)
        work = TrainWork(
            task="segmentation", data=(str(table),), ram=Bytes.parse("1GiB"), device="cpu", reads=bounds
        )
        job, _new = house.store.jobs.submit(house.project, work)
        house.queue.announce(job.id)
        ended = house.ends(job, 120)
    finally:
        house.close()
    assert (ended.state, ended.reason) == ("failed", "data")
    assert ended.error is not None
    assert "leads out of the folders" in ended.error.message


def test_what_a_job_computes_lets_the_server_go_first(house: House) -> None:
    job = house.submit("hold", "60")
    pid = house.works(job)
    assert os.getpriority(os.PRIO_PROCESS, pid) == os.getpriority(os.PRIO_PROCESS, 0) + NICENESS
    house.store.jobs.cancel(job.id)
    assert house.ends(job).state == "cancelled"


def test_a_supervisor_whose_folder_was_taken_ends_its_work_without_a_word(house: House) -> None:
    job = house.submit("hold", "60")
    pid = house.works(job)
    supervisor = house.attempt(job)
    assert supervisor.pid
    fence.take(house.settings.job_folder(job.id), supervisor.fence + 1, supervisor.place)
    until(lambda: not alive(pid), 10, "the work ends")
    until(lambda: began(supervisor.pid) != supervisor.pid_began, 10, "its supervisor ends")
    # To the keeper it is lost, and the job goes on under the next number but one.
    house.store.jobs.cancel(job.id)
    assert house.ends(job).state == "cancelled"


def test_a_supervisor_that_was_stopped_for_long_finds_that_it_lost(house: House) -> None:
    job = house.submit("hold", "60")
    pid = house.works(job)
    attempt = house.attempt(job)
    assert attempt.pid
    supervisor = attempt.pid

    def ended_while_stopped() -> bool:
        """Who was stopped in the middle of a transaction locks SQLite for everybody: then a moment later."""
        os.kill(supervisor, signal.SIGSTOP)
        try:
            house.store.claims.end(attempt, Ending(how="worker_lost"), house.settings)  # as another keeper
        except StoreAway:
            os.kill(supervisor, signal.SIGCONT)
            return False
        return True

    until(ended_while_stopped, 60, "it was stopped where it holds no lock")
    until(lambda: house.get(job).attempts == 2 or house.get(job).state == "failed", what="it runs again")
    os.kill(attempt.pid, signal.SIGCONT)
    until(lambda: not alive(pid), 10, "the stale work ends")
    house.store.jobs.cancel(job.id)
    assert house.ends(job).state == "cancelled"


def test_no_secret_reaches_the_work_or_a_command_line(house: House) -> None:
    job = house.submit("hold", "60")
    pid = house.works(job)
    environment = Path(f"/proc/{pid}/environ").read_bytes()
    assert b"CAUDAL_SERVICE=" not in environment
    attempt = house.attempt(job)
    assert b"caudal.db" not in Path(f"/proc/{attempt.pid}/cmdline").read_bytes()
    house.store.jobs.cancel(job.id)
    house.ends(job)


def test_a_full_disk_is_named_and_a_retry_goes_on(small_disk: Path) -> None:
    settings = settings_for(small_disk / "home")
    database = small_disk.parent / "store.db"
    house = House(settings.model_copy(update={"database": type(settings.database)(f"sqlite:///{database}")}))
    try:
        house.start()
        job = house.submit("hold", "2")
        house.works(job, 3)
        filler = small_disk / "filler"
        with pytest.raises(OSError, match="No space"):
            fill(filler)
        ended = house.ends(job)
        assert (ended.state, ended.reason) == ("failed", "disk_full")
        refused = house.ends(house.submit("hold", "0"))
        assert (refused.state, refused.reason) == ("failed", "disk_full")
        filler.unlink()
        house.store.jobs.retry(job.id)
        assert house.ends(job).state == "succeeded"
    finally:
        house.close()
        shutil.rmtree(small_disk / "home", ignore_errors=True)


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Process:
    pid = 2**22 + 1  # nobody's

    def __init__(self) -> None:
        self.heard: list[int] = []

    def send_signal(self, number: int) -> None:
        self.heard.append(number)


@pytest.fixture
def signals(monkeypatch: pytest.MonkeyPatch) -> Process:
    process = Process()
    monkeypatch.setattr(os, "killpg", lambda _pid, number: process.heard.append(number))
    return process


def times(process: Process, stopping: Stopping, clock: Clock, seconds: float) -> list[tuple[float, int]]:
    sent = []
    while clock.now < seconds:
        before = len(process.heard)
        stopping.step()
        sent += [(clock.now, number) for number in process.heard[before:]]
        clock.now += 0.5
    return sent


def test_a_cancelled_process_is_asked_twice_and_killed_before_eight_seconds(signals: Process) -> None:
    clock = Clock()
    stopping = Stopping(signals, 5.0, None, None, clock)  # type: ignore[arg-type]
    stopping.ask("cancel")
    sent = times(signals, stopping, clock, 8.0)
    assert sent[:3] == [(0.0, signal.SIGTERM), (5.0, signal.SIGTERM), (7.5, signal.SIGKILL)]


def test_a_training_at_its_limit_may_finish_the_checkpoint_that_it_writes(signals: Process) -> None:
    clock, writes = Clock(), [True]
    stopping = Stopping(signals, 5.0, 10.0, lambda: writes[0], clock)  # type: ignore[arg-type]
    assert times(signals, stopping, clock, 40.0) == []
    assert stopping.asked == "timeout"
    writes[0] = False
    assert [number for _at, number in times(signals, stopping, clock, 42.0)][:2] == [
        signal.SIGTERM,
        signal.SIGKILL,
    ]


def test_a_training_of_long_steps_is_asked_one_step_before_its_limit(signals: Process) -> None:
    clock = Clock()
    stopping = Stopping(signals, 5.0, 10.0, lambda: False, clock, lambda: 4.0)  # type: ignore[arg-type]
    assert times(signals, stopping, clock, 15.0)[:3] == [
        (6.0, signal.SIGTERM), (13.0, signal.SIGTERM), (14.5, signal.SIGKILL)
    ]  # fmt: skip
    assert stopping.asked == "timeout"


def test_a_verb_without_a_clock_is_asked_at_its_limit(signals: Process) -> None:
    clock = Clock()
    stopping = Stopping(signals, 5.0, 10.0, None, clock)  # type: ignore[arg-type]
    assert times(signals, stopping, clock, 18.0)[:3] == [
        (10.0, signal.SIGTERM), (13.0, signal.SIGTERM), (14.5, signal.SIGKILL)
    ]  # fmt: skip


def test_cancelling_comes_before_stopping_and_what_was_asked_is_asked_on(signals: Process) -> None:
    clock = Clock()
    stopping = Stopping(signals, 5.0, None, None, clock)  # type: ignore[arg-type]
    stopping.ask("stop")
    stopping.step()
    stopping.ask("cancel")
    stopping.ask("stop")
    assert stopping.asked == "cancel"
    assert times(signals, stopping, clock, 8.0)[-1][1] == signal.SIGKILL


def test_no_value_can_be_taken_for_an_option() -> None:
    out = Path("/out")
    hostile = "--ram=1TiB"
    for work in (
        TrainWork(task=hostile, data=(hostile,), masks=(hostile,), labels=hostile, ram="1GiB"),
        TrainWork(spec=Path(hostile), ram="1GiB"),
        EvaluateWork(run=hostile, data=(hostile,), ram="1GiB"),
        PredictWork(run=hostile, inputs=(hostile, hostile), ram="1GiB", scores=True),
        ExplainWork(run=hostile, images=hostile, method=(hostile,), target=hostile, ram="1GiB"),
        PackWork(data=hostile, resize=hostile, ram="1GiB"),
    ):
        words = work.words(out)
        options = words[: words.index("--")]
        assert options[0] == work.verb
        assert all(word.startswith("--") for word in options[1:])
        assert [word for word in options if word.startswith("--ram")] == ["--ram=1073741824"]
    with pytest.raises(ValueError, match="name"):
        PredictWork(run="r", inputs=("i",), name="../escape.tif")


_SIZES = {"ram": "1GiB", "vram": "1GiB", "device": "cpu"}


@pytest.mark.parametrize(
    "work",
    [
        TrainWork(task="segmentation", data=("nowhere",), masks=("nowhere",), seed=3, **_SIZES),
        PredictWork(run="nowhere", inputs=("nowhere",), scores=True, d4=True, exact=True, **_SIZES),
        EvaluateWork(run="nowhere", data=("nowhere",), masks=("nowhere",), labels="nowhere", **_SIZES),
        ExplainWork(run="nowhere", images="nowhere", method=("gradcam",), target="a", most=3, device="cpu"),
        PackWork(data="nowhere", samples="file", resize="8x8", shard="1048576", ram="1GiB"),
    ],
    ids=lambda work: work.verb,
)
def test_the_words_are_those_that_the_command_understands(work: Work, tmp_path: Path) -> None:

    command = [sys.executable, "-m", "caudal", *work.words(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    error = json.loads(done.stdout.splitlines()[-1])["error"]
    assert error["code"] != "usage", error
    assert "nowhere" in json.dumps(error)

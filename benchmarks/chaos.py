"""Whatever is killed, whenever: no job is lost, stuck, run twice or ended under a wrong name.

`CAUDAL_CHAOS_RUNS` trainings (200), one after the other, each with one blow at a random moment; half of them
on the embedded queue with SQLite, half on Celery with Redis and PostgreSQL.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks.chaos_house import ROOT, ChaosHouse, Doubles
from benchmarks.rows import Row
from caudal.service.records import Job
from caudal.service.states import ENDED
from caudal.service.work import TrainWork, Work

STUCK_SECONDS = 150.0
NAMES = {"training": "killed", "supervisor": "worker_lost", "disk": "disk_full", "memory": "oom_host"}
"""The reason that an attempt has to get; the other blows have to leave attempts alone."""
EMBEDDED = ("training", "supervisor", "worker", "server", "clock", "disk", "training", "supervisor", "memory")
CELERY = ("training", "supervisor", "worker", "server", "clock", "redis", "postgres", "redis", "postgres")


@dataclass
class Tally:
    """What came of it. `missed`: the job had ended before the blow."""

    runs: int = 0
    lost: int = 0
    stuck: int = 0
    twice: int = 0
    judged: int = 0
    wrong: list[str] = field(default_factory=list)
    half: list[str] = field(default_factory=list)
    losses_differ: int = 0
    compared: int = 0
    doubled_events: int = 0
    missed: int = 0
    noticed: list[float] = field(default_factory=list)
    blows: Counter[str] = field(default_factory=Counter)


class Campaign:
    """One house, one work, many blows. `span` is about how long the work takes, in seconds."""

    def __init__(self, house: ChaosHouse, work: Work, span: float, seed: int, tally: Tally) -> None:
        self.house, self.work, self.span, self.tally = house, work, span, tally
        self.draw = random.Random(seed)
        self.truth: dict[int, float] = {}

    def run(self, blow: str) -> None:
        """One job and one blow (`none`: the undisturbed one, whose losses are the truth)."""
        house, tally = self.house, self.tally
        if blow == "memory" and house.group is None:
            blow = "training"
        job, _new = house.store.jobs.submit(house.project, self.work)
        tally.runs += blow != "none"
        tally.blows[blow] += 1
        begun = time.monotonic()
        if blow != "none":
            time.sleep(self.draw.uniform(0.0, self.span))
            self.strike(blow, job)
        ended = self.wait(job, begun)
        if ended is None:
            return
        self.judge(job, blow)

    def strike(self, blow: str, job: Job) -> None:
        house = self.house
        if blow in ("training", "supervisor"):
            self.strike_attempt(blow, job)
        elif blow == "worker":
            for pid in house.worker_pids():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if house.worker is not None:
                house.worker.wait()
                self.pause()
                house.start_worker()
        elif blow == "server":
            assert house.server is not None
            house.server.kill()
            house.server.wait()
            self.pause()
            house.start_server()
        elif blow == "redis":
            assert house.redis is not None
            if self.draw.random() < 0.5:
                house.redis.client().flushall()
            house.redis.kill()
            self.pause()
            house.redis.start()
        elif blow == "postgres":
            assert house.postgres is not None
            house.postgres.kill()
            self.pause()
            house.postgres.start()
        elif blow == "clock":
            house.clock.write_text(str(self.draw.uniform(-1e6, 1e6)))
        elif blow == "disk":
            self.fill_disk(job)
        elif blow == "memory":
            self.take_memory(job)

    def pause(self) -> None:
        time.sleep(self.draw.uniform(0.0, 1.5))

    def strike_attempt(self, blow: str, job: Job) -> None:
        until = time.monotonic() + 10
        while time.monotonic() < until:
            attempt = self.house.attempt(job)
            pid = attempt and (attempt.pid if blow == "supervisor" else self.house.work_of(attempt))
            if attempt is not None and pid:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                self.notice(job, attempt.id)
                return
            if self.house.store.jobs.get(job.id).state in ENDED:
                return
            time.sleep(0.02)

    def notice(self, job: Job, attempt_id: str) -> None:
        """How long until the attempt is known to have ended."""
        struck = time.monotonic()
        while time.monotonic() - struck < STUCK_SECONDS:
            attempt = next(a for a in self.house.store.jobs.attempts(job.id) if a.id == attempt_id)
            if attempt.state == "ended":
                self.tally.noticed.append(time.monotonic() - struck)
                return
            time.sleep(0.02)

    def fill_disk(self, job: Job) -> None:
        """Leave nothing of the jobs' disk until the job has ended, then try it again with room."""
        filler = self.house.settings.jobs_folder() / "filler"
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 16))
        self.wait(job, time.monotonic())
        filler.unlink()
        if self.house.store.jobs.get(job.id).state == "failed":
            self.house.store.jobs.retry(job.id)

    def take_memory(self, job: Job) -> None:
        """Somebody else in the group takes memory until the kernel kills."""
        events = self.house.settings.run_folder(job.id) / "events.jsonl"
        script = ROOT / "tests" / "runs" / "greedy_neighbour.py"
        neighbour = subprocess.Popen([sys.executable, str(script), str(self.house.group), str(events)])
        try:
            until = time.monotonic() + STUCK_SECONDS
            while neighbour.poll() is None and time.monotonic() < until:
                if self.house.store.jobs.get(job.id).state in ENDED:
                    break
                time.sleep(0.05)
        finally:
            neighbour.kill()
            neighbour.wait()

    def wait(self, job: Job, begun: float) -> Job | None:
        """The job at its end; `None` where it has none."""
        while time.monotonic() - begun < STUCK_SECONDS:
            if not any(one.id == job.id for one in self.house.store.jobs.list(limit=20)):
                self.tally.lost += 1
                return None
            now = self.house.store.jobs.get(job.id)
            if now.state in ENDED:
                return now
            time.sleep(0.05)
        self.tally.stuck += 1
        print("stuck:", self.house.store.jobs.get(job.id), self.house.store.jobs.attempts(job.id), flush=True)
        return None

    def judge(self, job: Job, blow: str) -> None:
        house, tally = self.house, self.tally
        job = house.store.jobs.get(job.id)
        reasons = [attempt.reason for attempt in house.store.jobs.attempts(job.id)]
        expected = NAMES.get(blow)
        if expected is not None and reasons == [None] and job.state == "succeeded":
            tally.missed += 1
        elif blow != "none":
            tally.judged += 1
            named = reasons == ([None] if expected is None else [expected, None])
            if not named or job.state != "succeeded":
                tally.wrong.append(f"{blow} → {job.state} {reasons} {job.error}")
        steps = [e for e in self.events(job) if e["kind"] == "step_done"]
        losses = {e["step"]: e.get("loss", 0.0) for e in steps}
        if blow == "none":
            self.truth = losses
        elif blow != "memory":  # a smaller plan computes in other portions
            tally.compared += 1
            same = all(e.get("loss", 0.0) == self.truth[e["step"]] for e in steps)
            tally.losses_differ += not (same and losses.keys() == self.truth.keys())
        told = house.settings.run_folder(job.id) / "events.jsonl"
        kept = sum(line.startswith('{"kind": "step_done"') and line.endswith("}") for line in
                   told.read_text().splitlines())  # fmt: skip
        tally.doubled_events += kept != len(steps)
        tally.half += [str(path) for path in half_files(house.settings.job_folder(job.id))]
        shutil.rmtree(house.settings.job_folder(job.id))

    def events(self, job: Job) -> list[dict[str, object]]:
        last, found = 0, []
        while page := self.house.store.events.after(last, job.id):
            found += [{"kind": event.kind, **event.body} for event in page]
            last = page[-1].id
        return found


def half_files(folder: Path) -> list[Path]:
    """Files under a final name that are not whole."""
    half = []
    for path in folder.rglob("*"):
        try:
            if path.suffix == ".json":
                json.loads(path.read_text())
            elif path.suffix == ".safetensors":
                data = path.read_bytes()
                size = int.from_bytes(data[:8], "little")
                header = json.loads(data[8 : 8 + size])
                ends = [row["data_offsets"][1] for name, row in header.items() if name != "__metadata__"]
                if len(data) != 8 + size + max(ends, default=0):
                    half.append(path)
        except ValueError:
            half.append(path)
    return half


def tiny_training(folder: Path) -> Work:
    """20 steps on six small scenes."""
    from tests.data.sets import blob_set

    data = blob_set(folder / "data", [(96, 96)] * 6)
    spec = folder / "spec.toml"
    spec.write_text(
        f'task = "segmentation"\n[data]\nimages = [{json.dumps(str(data))}]\n'
        "[training]\nsteps = 20\nbatch = 4\nvalidate_every = 10\ncheckpoint_steps = 2\n"
        "[model]\nname = 'unet'\n[model.config]\nwidth = 8\ndepth = 2\nstem = 1\n"
    )
    return TrainWork(spec=spec, ram="600MiB", device="cpu")


def row() -> Row:
    """See the first words of this file."""
    number = int(os.environ.get("CAUDAL_CHAOS_RUNS", "200"))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # whatever was started is ended then, too
    tally = Tally()
    began = time.monotonic()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="caudal-chaos-")))
        work = tiny_training(folder)
        for name, blows, share in (
            ("embedded", EMBEDDED, number - number // 2),
            ("celery", CELERY, number // 2),
        ):
            with ExitStack() as inner:
                group = None
                if "memory" in blows and os.geteuid() == 0:
                    from tests.cgroups import memory_group

                    group = inner.enter_context(memory_group(900 * 2**20))
                house = ChaosHouse(folder / name, name == "celery", group, ram="800MiB")
                if "disk" in blows and not _small_disk(house, inner):
                    blows = tuple(blow for blow in blows if blow != "disk")
                inner.callback(house.close)
                house.start()
                doubles = Doubles(house)
                doubles.start()
                truth_began = time.monotonic()
                campaign = Campaign(house, work, 1.0, 7, tally)
                campaign.run("none")
                campaign.span = time.monotonic() - truth_began
                for i in range(share):
                    campaign.run(blows[i % len(blows)])
                    print(i, blows[i % len(blows)], tally, flush=True)
                doubles.stop()
                tally.twice += len(doubles.found)
    right = 1 - len(tally.wrong) / max(1, tally.judged)
    slowest = max(tally.noticed, default=0.0)
    met = (
        not (
            tally.lost
            or tally.stuck
            or tally.twice
            or tally.half
            or tally.losses_differ
            or tally.doubled_events
        )
        and right >= 0.99
        and slowest <= 5
    )
    return Row(
        f"{tally.runs} trainings of 20 steps, each with a kill -9 or another blow at a random moment",
        "none lost, stuck, run twice or half written; the reason right in 99 %, known in 5 s; losses equal",
        met,
        [
            ("blows", ", ".join(f"{blow} {n}" for blow, n in sorted(tally.blows.items()) if blow != "none")),
            ("lost, stuck, run twice", f"{tally.lost}, {tally.stuck}, {tally.twice}"),
            (
                "reason right",
                f"{right:.1%} of {tally.judged} (the job was done before the blow: {tally.missed})",
            ),
            ("wrong", "; ".join(tally.wrong) or "none"),
            ("known after", f"median {median(tally.noticed or [0]):.2f} s, at most {slowest:.2f} s"),
            ("half files under a final name", str(len(tally.half))),
            ("losses other than undisturbed", f"{tally.losses_differ} of {tally.compared}"),
            ("runs with events lost or doubled", str(tally.doubled_events)),
            ("time", f"{(time.monotonic() - began) / 60:.1f} min"),
        ],
    )


def _small_disk(house: ChaosHouse, stack: ExitStack) -> bool:
    """Put the jobs on a disk of their own that can be filled."""
    jobs = house.settings.jobs_folder()
    jobs.mkdir(parents=True)
    if (
        os.geteuid()
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(jobs)], capture_output=True
        ).returncode
    ):
        return False
    stack.callback(subprocess.run, ["umount", str(jobs)], check=True)
    return True

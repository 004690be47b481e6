"""Blows at a service while jobs run, and what came of each job: a record that can be added up."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.chaos_house import ROOT, ChaosHouse
from caudal.service.records import Job
from caudal.service.states import ENDED
from caudal.service.work import Work

STUCK_SECONDS = 240.0
NAMES = {"training": "killed", "supervisor": "worker_lost", "disk": "disk_full", "memory": "oom_host"}
"""The reason that an attempt has to get; the other blows have to leave attempts alone."""
OWN = ("training", "supervisor")
"""Blows at one job; the others hit all that run."""


@dataclass
class Outcome:
    """What came of one job. `missed`: it had ended before the blow; `wrong`: what was named otherwise."""

    blow: str
    lost: bool = False
    stuck: bool = False
    missed: bool = False
    wrong: str = ""
    half: list[str] = field(default_factory=list)
    compared: bool = False
    losses_differ: bool = False
    events_differ: bool = False
    noticed: float | None = None
    seconds: float = 0.0


@dataclass
class Tally:
    """All of it. `twice` are jobs of which two attempts were seen alive at once."""

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

    def add(self, outcome: Outcome) -> None:
        """One more."""
        self.runs += 1
        self.blows[outcome.blow] += 1
        self.lost += outcome.lost
        self.stuck += outcome.stuck
        self.missed += outcome.missed
        self.judged += not (outcome.missed or outcome.lost or outcome.stuck)
        self.wrong += [outcome.wrong] if outcome.wrong else []
        self.half += outcome.half
        self.compared += outcome.compared
        self.losses_differ += outcome.losses_differ
        self.doubled_events += outcome.events_differ
        self.noticed += [outcome.noticed] if outcome.noticed is not None else []


class Campaign:
    """One house, one work, many blows. `tell` hears every outcome."""

    def __init__(
        self, house: ChaosHouse, work: Work, seed: int, tell: Callable[[Outcome], None] = lambda _o: None
    ) -> None:
        self.house, self.work, self.tell = house, work, tell
        self.draw = random.Random(seed)
        self.truth: dict[int, float] = {}
        self.span = 0.0

    def calm(self) -> None:
        """One job without a blow: its losses are the truth, its time the span in which blows fall."""
        job, _new = self.house.store.jobs.submit(self.house.project, self.work)
        began = time.monotonic()
        outcome = self.end(job, "none")
        assert outcome is None, f"undisturbed it ends otherwise: {outcome}"
        self.span = time.monotonic() - began
        steps = [event for event in self.events(job) if event["kind"] == "step_done"]
        self.truth = {int(str(e["step"])): float(str(e.get("loss", 0.0))) for e in steps}

    def wave(self, blows: Sequence[str]) -> None:
        """Jobs at once: each with a blow of its own, or all of them with the same one."""
        assert len(set(blows)) == 1 or set(blows) <= set(OWN), "one blow that hits all, or one for each"
        began = time.monotonic()
        jobs = [self.house.store.jobs.submit(self.house.project, self.work)[0] for _blow in blows]
        noticed: dict[str, float] = {}
        if blows[0] in OWN:
            threads = []
            for blow, job in zip(blows, jobs, strict=True):
                when = self.draw.uniform(0.0, self.span * 0.9)
                words = (blow, job, when, noticed)
                threads.append(threading.Thread(target=self.strike_attempt, args=words))
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        else:
            # Somebody who takes memory needs some time for it, and waits for a checkpoint by himself.
            time.sleep(0 if blows[0] == "memory" else self.draw.uniform(0.0, self.span))
            self.strike(blows[0], jobs[0])
        for blow, job in zip(blows, jobs, strict=True):
            outcome = self.end(job, blow) or self.judge(job, blow)
            outcome.noticed, outcome.seconds = noticed.get(job.id), time.monotonic() - began
            self.tell(outcome)

    def strike(self, blow: str, job: Job) -> None:
        house = self.house
        if blow == "worker":
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

    def strike_attempt(self, blow: str, job: Job, after: float, noticed: dict[str, float]) -> None:
        """Kill what works for one job, some time after it has begun, and see when that is known."""
        until = time.monotonic() + STUCK_SECONDS
        began: float | None = None
        while time.monotonic() < until:
            attempt = self.house.attempt(job)
            pid = attempt and (attempt.pid if blow == "supervisor" else self.house.work_of(attempt))
            began = time.monotonic() if began is None and pid else began
            if attempt is not None and pid and began is not None and time.monotonic() - began >= after:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                self.notice(job, attempt.id, noticed)
                return
            if self.house.store.jobs.get(job.id).state in ENDED:
                return
            time.sleep(0.05)

    def notice(self, job: Job, attempt_id: str, noticed: dict[str, float]) -> None:
        """How long until the attempt is known to have ended."""
        struck = time.monotonic()
        while time.monotonic() - struck < STUCK_SECONDS:
            attempt = next(a for a in self.house.store.jobs.attempts(job.id) if a.id == attempt_id)
            if attempt.state == "ended":
                noticed[job.id] = time.monotonic() - struck
                return
            time.sleep(0.02)

    def fill_disk(self, job: Job) -> None:
        """Leave nothing of the jobs' disk until the job has ended, then try it again with room."""
        filler = self.house.settings.jobs_folder() / "filler"
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 16))
        self.end(job, "disk")
        filler.unlink()
        if self.house.store.jobs.get(job.id).state == "failed":
            self.house.store.jobs.retry(job.id)

    def take_memory(self, job: Job) -> None:
        """Somebody else in the group takes memory until the kernel kills."""
        events = self.house.settings.run_folder(job.id) / "events.jsonl"
        words = ["-m", "benchmarks.chaos_neighbour", str(self.house.group), str(events)]
        neighbour = subprocess.Popen([sys.executable, *words], cwd=ROOT)
        try:
            until = time.monotonic() + STUCK_SECONDS
            while neighbour.poll() is None and time.monotonic() < until:
                if self.house.store.jobs.get(job.id).state in ENDED:
                    break
                time.sleep(0.05)
        finally:
            neighbour.kill()
            neighbour.wait()

    def end(self, job: Job, blow: str) -> Outcome | None:
        """Wait for its end; what is to be told where it has none."""
        began = time.monotonic()
        while time.monotonic() - began < STUCK_SECONDS:
            if not any(one.id == job.id for one in self.house.store.jobs.list(limit=50)):
                return Outcome(blow, lost=True)
            if self.house.store.jobs.get(job.id).state in ENDED:
                return None
            time.sleep(0.05)
        print("stuck:", self.house.store.jobs.get(job.id), self.house.store.jobs.attempts(job.id), flush=True)
        return Outcome(blow, stuck=True)

    def judge(self, job: Job, blow: str) -> Outcome:
        """Compare a job that has ended with what the blow has to lead to; its folder is removed."""
        house, outcome = self.house, Outcome(blow)
        job = house.store.jobs.get(job.id)
        reasons = [attempt.reason for attempt in house.store.jobs.attempts(job.id)]
        expected = NAMES.get(blow)
        outcome.missed = expected is not None and reasons == [None] and job.state == "succeeded"
        named = reasons == ([None] if expected is None else [expected, None])
        if not outcome.missed and (not named or job.state != "succeeded"):
            outcome.wrong = f"{blow} → {job.state} {reasons} {job.error}"
        steps = [event for event in self.events(job) if event["kind"] == "step_done"]
        losses = {int(str(e["step"])): float(str(e.get("loss", 0.0))) for e in steps}
        if blow != "memory":  # a smaller plan computes in other portions
            outcome.compared = True
            same = all(self.truth.get(int(str(e["step"]))) == e.get("loss", 0.0) for e in steps)
            outcome.losses_differ = not same or losses.keys() != self.truth.keys()
        told = house.settings.run_folder(job.id) / "events.jsonl"
        kept = sum(
            line.startswith('{"kind": "step_done"') and line.endswith("}")
            for line in (told.read_text().splitlines() if told.is_file() else ())
        )
        outcome.events_differ = kept != len(steps)
        outcome.half = [str(path) for path in half_files(house.settings.job_folder(job.id))]
        if outcome.wrong or outcome.losses_differ or outcome.events_differ or outcome.half:
            house.keep(job)
        shutil.rmtree(house.settings.job_folder(job.id))
        return outcome

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

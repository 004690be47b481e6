"""The drawn diagram and nothing else: whatever people, workers and clocks do, in any order."""

from __future__ import annotations

import tempfile
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from caudal.service.ends import Ending
from caudal.service.errors import Conflict
from caudal.service.records import Attempt, Job
from caudal.service.settings import Settings
from caudal.service.states import ACTIVE, ENDED, MOVES, STATES, sources
from caudal.service.store import Machine, Superseded, open_store
from caudal.service.work import TrainWork

WORK = TrainWork(task="hold", data=("/data",), ram="100MiB", device="cpu")
MACHINES = [Machine(name, name, 250 * 2**20, 0, 2) for name in ("a", "b")]
HOWS = st.sampled_from(
    ["succeeded", "stopped", "oom_host", "oom_shm", "killed", "worker_lost", "timeout", "data"]
)


class Service(RuleBasedStateMachine):
    """People ask, machines claim and tell, some of them late: they hold attempts that were ended long ago."""

    attempts = Bundle("attempts")

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.store = open_store(f"sqlite:///{self.folder.name}/s.db")
        self.settings = Settings(home=Path(self.folder.name), memory_retries=1, lost_retries=1)
        self.project = self.store.projects.create("one").id
        self.known: dict[str, Job] = {}
        self.fenced: dict[str, int] = {}

    def teardown(self) -> None:
        self.store.close()
        self.folder.cleanup()

    def job(self, number: int) -> str | None:
        return sorted(self.known)[number % len(self.known)] if self.known else None

    @rule()
    def submit(self) -> None:
        if len(self.known) < 5:
            self.store.jobs.submit(self.project, WORK)

    @rule(number=st.integers(0, 4))
    def cancel(self, number: int) -> None:
        if job_id := self.job(number):
            if self.known[job_id].state in ENDED:
                with pytest.raises(Conflict):
                    self.store.jobs.cancel(job_id)
            else:
                self.store.jobs.cancel(job_id)

    @rule(number=st.integers(0, 4))
    def retry(self, number: int) -> None:
        if job_id := self.job(number):
            if self.known[job_id].state in ("failed", "cancelled"):
                self.store.jobs.retry(job_id)
            else:
                with pytest.raises(Conflict):
                    self.store.jobs.retry(job_id)

    @rule(target=attempts, machine=st.sampled_from(MACHINES))
    def claim(self, machine: Machine) -> object:
        found = self.store.claims.claim(machine)
        return multiple() if found is None else found[1]

    def tell(self, attempt: Attempt, act) -> None:  # type: ignore[no-untyped-def]
        """What a supervisor tells is heard as long as its attempt is open, and else changes nothing."""
        before = self.store.jobs.get(attempt.job_id)
        is_open = any(one.id == attempt.id for one in self.store.claims.open_attempts())
        try:
            act()
            assert is_open
        except Superseded:
            assert not is_open
            assert self.store.jobs.get(attempt.job_id) == before

    @rule(attempt=attempts)
    def run(self, attempt: Attempt) -> None:
        self.tell(attempt, lambda: self.store.claims.beat(attempt))
        if any(one.id == attempt.id for one in self.store.claims.open_attempts()):
            self.store.claims.running(attempt, Path("/run"))

    @rule(attempt=attempts)
    def beat(self, attempt: Attempt) -> None:
        self.tell(attempt, lambda: self.store.claims.beat(attempt))

    @rule(attempt=attempts, how=HOWS)
    def end(self, attempt: Attempt, how: str) -> None:
        before = self.store.jobs.get(attempt.job_id)
        was_open = any(one.id == attempt.id for one in self.store.claims.open_attempts())
        ended = self.store.claims.end(attempt, Ending(how=how), self.settings)
        assert (ended is not None) == was_open
        if not was_open:
            assert self.store.jobs.get(attempt.job_id) == before

    @rule(attempt=attempts)
    def lose(self, attempt: Attempt) -> None:
        for one in self.store.claims.open_attempts():
            if one.id == attempt.id:
                self.store.claims.lost_contact(one)

    @rule()
    def wait(self) -> None:
        for job in self.store.jobs.list(states=["waiting"]):
            self.store.line.wake(job.id, job.version)

    @invariant()
    def every_move_is_drawn_and_told_once(self) -> None:
        if not hasattr(self, "store"):
            return
        jobs = self.store.jobs.list()
        open_of: dict[str, list[Attempt]] = {}
        for attempt in self.store.claims.open_attempts():
            open_of.setdefault(attempt.job_id, []).append(attempt)
        for job in jobs:
            told = [e.body["state"] for e in self.store.events.after(0, job.id) if e.kind == "job_state"]
            assert told[0] == "queued"
            assert told[-1] == job.state
            for one, following in pairwise(told):
                assert following in MOVES[one] or following == one == "unreachable"
            # Who runs has one attempt open, which holds the fence; who does not has none.
            held = open_of.get(job.id, [])
            assert len(held) == (1 if job.state in ACTIVE else 0)
            assert all(attempt.fence == job.fence for attempt in held)
            assert job.fence >= self.fenced.get(job.id, 0)
            assert (job.ended is not None) == (job.state in ENDED)
            assert (job.reason is not None) >= (job.state == "failed")
            self.fenced[job.id] = job.fence
            self.known[job.id] = job
        for machine in MACHINES:
            here = [a for attempts in open_of.values() for a in attempts if a.worker == machine.name]
            assert sum(attempt.ram_bytes for attempt in here) <= machine.ram_bytes
            assert len(here) <= machine.most_jobs


TestService = Service.TestCase
TestService.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)


def test_every_state_can_be_reached_and_left_but_for_the_end_of_all() -> None:
    reached, new = {"queued"}, {"queued"}
    while new:
        new = {to for state in new for to in MOVES[state]} - reached
        reached |= new
    assert reached == set(STATES)
    assert {state for state in STATES if not MOVES[state]} == {"succeeded"}
    assert sources("starting") == {"queued"}

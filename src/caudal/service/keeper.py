"""Sees that no job is without somebody who works on it: the one that looks after attempts, workers and waits.

Every machine has one, and they may all see the same job: each act is a compare-and-set. On its own machine it
looks at processes; of others it knows only whether they are heard of, counted by its own monotonic clock, so
that no clock on any wall matters. What an end means is `ends.py`.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress

from caudal.core.messages import _
from caudal.service.attempt import ending_file
from caudal.service.ends import Ending
from caudal.service.largest import largest, too_large
from caudal.service.place import end_members, is_alive, place
from caudal.service.records import Attempt, Problem
from caudal.service.settings import Settings
from caudal.service.store import Store, Superseded
from caudal.service.tail import Tail
from caudal.service.tracking import Ender

LEASES = 3
"""After so many without a word, a worker elsewhere is lost."""
_BIRTH_SECONDS = 5.0  # from a claim to the supervisor's first word
_IN_VIEW = 100
_FIRST_SWEEP_SECONDS, _SWEEP_SECONDS = 60.0, 3600.0
_DAY_SECONDS = 86400.0


class Keeper:
    """Call `look` a few times a second. `clock` is monotonic; what it knows of others is lost with it."""

    def __init__(
        self, store: Store, settings: Settings, clock: Callable[[], float] = time.monotonic, here: str = ""
    ) -> None:
        self._store, self._settings, self._clock = store, settings, clock
        self._here = here or place()
        self._beats: dict[str, tuple[int, float]] = {}
        self._ender = Ender(store, settings, clock)
        self._waits: dict[tuple[str, int], float] = {}
        self._next_sweep = clock() + _FIRST_SWEEP_SECONDS

    def look(self) -> None:
        """Do what is due.

        Raises:
            StoreAway: try again.
        """
        open_attempts = self._store.claims.open_attempts()
        for attempt in open_attempts:
            if attempt.place == self._here:
                self._near(attempt)
            else:
                self._far(attempt)
        self._workers()
        self._waiting()
        self._too_large()
        self._ender.tend()
        if self._clock() >= self._next_sweep:
            self._sweep()

    def _near(self, attempt: Attempt) -> None:
        """Of this machine: its supervisor is alive, or it is ended here and now."""
        if attempt.pid is None or attempt.pid_began is None:
            if self._silence(attempt.id, attempt.beat) >= _BIRTH_SECONDS:
                self._store.claims.end(attempt, Ending(how="stopped"), self._settings, unheard=True)
            return
        if is_alive(attempt.pid, attempt.pid_began):
            return
        if end_members(attempt.id):
            return  # they need a moment to die; the next look finds them gone
        events = self._settings.run_folder(attempt.job_id) / "events.jsonl"
        with suppress(Superseded):
            Tail(self._store, attempt, events).carry_all()
        self._store.claims.end(attempt, self._what_it_left(attempt), self._settings)

    def _what_it_left(self, attempt: Attempt) -> Ending:
        """The end that the supervisor noted before it died, or that it was lost."""
        note = ending_file(self._settings.job_folder(attempt.job_id), attempt)
        with suppress(OSError, ValueError):
            return Ending.model_validate_json(note.read_text(encoding="utf-8"))
        problem = Problem(code="worker_lost", message=_("The process that supervised the job was ended."))
        return Ending(how="worker_lost", error=problem, limit_bytes=attempt.limit_bytes)

    def _far(self, attempt: Attempt) -> None:
        """Of another machine, or of this one before it was started anew: only what is heard counts."""
        silence = self._silence(attempt.id, attempt.beat)
        if silence >= LEASES * self._settings.lease_seconds:
            text = _("Nothing was heard of the worker {worker} for {seconds:.0f} s.")
            problem = Problem(code="worker_lost", message=text.format(worker=attempt.worker, seconds=silence))
            ending = Ending(how="worker_lost", error=problem, limit_bytes=attempt.limit_bytes)
            self._store.claims.end(attempt, ending, self._settings, unheard=True)
        elif silence >= self._settings.lease_seconds:
            self._store.claims.lost_contact(attempt)

    def _workers(self) -> None:
        beats = self._store.workers.beats()
        for worker in self._store.workers.list():
            beat = beats.get(worker.id)
            if beat is None:
                continue
            silence = self._silence(worker.id, beat)
            if silence >= LEASES * self._settings.lease_seconds:
                self._store.workers.set_state(worker.id, "gone", beat)
            elif silence >= self._settings.lease_seconds and worker.state == "here":
                self._store.workers.set_state(worker.id, "away", beat)

    def _waiting(self) -> None:
        now = self._clock()
        waiting = self._store.jobs.list(states=["waiting"], limit=_IN_VIEW)
        seen = {(job.id, job.version): job.wait_seconds for job in waiting}
        self._waits = {key: self._waits.get(key, now) for key in seen}
        for key, began in self._waits.items():
            if now - began >= seen[key]:
                self._store.line.wake(*key)

    def _too_large(self) -> None:
        """On one machine alone, what it can never hold is refused; among several, a larger one may come, and
        the job says that it waits for that.
        """
        most = largest(self._store)
        if most is None:
            return
        for job_id, *needed in self._store.line.larger_than(*most):
            problem = too_large((needed[0], needed[1]), most)
            assert problem is not None, "it was looked for"
            if self._store.database.is_sqlite:
                self._store.line.refuse(job_id, Ending(how="does_not_fit", error=problem))
            else:
                text = _("{fact} It starts when a larger one takes jobs.").format(fact=problem.message)
                self._store.line.say_next(job_id, text)

    def _sweep(self) -> None:
        """Forget what is old: some of it at a time, so that nobody waits for that."""
        history = self._settings.history_days * _DAY_SECONDS
        self._store.once.sweep(self._settings.once_days * _DAY_SECONDS)
        swept = self._store.audit.sweep(history), self._store.events.sweep(history)
        self._next_sweep = self._clock() + (0.0 if any(swept) else _SWEEP_SECONDS)

    def _silence(self, name: str, beat: int) -> float:
        """For how many seconds nothing was heard, as far as this process has seen."""
        now = self._clock()
        known = self._beats.get(name)
        if known is None or known[0] != beat:
            self._beats[name] = (beat, now)
            return 0.0
        return now - known[1]


def ask_to_stop(store: Store, here: str) -> list[Attempt]:
    """Ask all supervisors of this machine to have their work checkpoint and go back in line; who they are."""
    asked = []
    for attempt in store.claims.open_attempts():
        if attempt.place == here and attempt.pid and attempt.pid_began:
            if is_alive(attempt.pid, attempt.pid_began):
                with suppress(ProcessLookupError):
                    os.kill(attempt.pid, signal.SIGTERM)
            asked.append(attempt)
    return asked

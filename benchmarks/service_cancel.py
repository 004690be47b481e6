"""How fast cancelled jobs are gone, on both queues: the processes, and with them their memory.

Half of the jobs hear no signal and have a child that hears none either; the work is a program that only holds
memory, so that what is measured is the service.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from tests.service.back.conftest import settings_for
from tests.service.back.house import House
from tests.service.back.servers import Redis

from benchmarks.chaos_house import ROOT
from benchmarks.rows import Row
from caudal.service.place import members

TRIES = int(os.environ.get("CAUDAL_CANCEL_TRIES", "100"))
AT_ONCE = 8
_MOST_SECONDS = 10.0


@dataclass
class Gone:
    """Seconds from the cancel to the end of each job, and processes that were left then."""

    seconds: list[float] = field(default_factory=list)
    left: int = 0

    @property
    def in_time(self) -> bool:
        """Whether all were gone, all of each, in time."""
        return max(self.seconds) <= _MOST_SECONDS and not self.left

    def __str__(self) -> str:
        in_time = sum(one <= _MOST_SECONDS for one in self.seconds)
        return (
            f"{in_time} of {len(self.seconds)} in time, median {median(self.seconds):.2f} s, at most "
            f"{max(self.seconds):.2f} s; processes left: {self.left}"
        )


def row() -> Row:
    """One queue after the other."""
    found = {queue: _of(queue) for queue in ("embedded", "celery")}
    return Row(
        f"{TRIES} jobs and more on each queue, {AT_ONCE} at once, half of them deaf to signals, cancelled",
        "processes and memory gone in 10 s, each time",
        all(gone.in_time for gone in found.values()),
        [(queue, str(gone)) for queue, gone in found.items()],
    )


def _of(queue: str) -> Gone:
    with tempfile.TemporaryDirectory(prefix="caudal-cancel-") as folder:
        redis = Redis().start() if queue == "celery" else None
        more = {"queue": "celery", "broker": redis.url, "celery_workers": AT_ONCE} if redis else {}
        verb = str(ROOT / "tests" / "service" / "back" / "verb.py")
        house = House(settings_for(Path(folder) / "home", program=(sys.executable, verb), **more))
        try:
            return _cancelled(house.start())
        finally:
            house.close()
            if redis is not None:
                redis.kill()


def _cancelled(house: House) -> Gone:
    house.ends(house.submit("hold", "0"))  # whatever is loaded late is loaded now
    found = Gone()
    for turn in range(0, TRIES, AT_ONCE):
        jobs = [house.submit("deaf" if (turn + i) % 2 else "hold", "60") for i in range(AT_ONCE)]
        for job in jobs:
            house.works(job)
        began = time.monotonic()
        for job in jobs:
            house.store.jobs.cancel(job.id)
        while jobs:
            for job in list(jobs):
                if house.get(job).state == "cancelled":
                    found.seconds.append(time.monotonic() - began)
                    found.left += len(members(house.attempt(job).id))
                    jobs.remove(job)
            time.sleep(0.02)
    return found

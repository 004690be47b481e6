"""How fast jobs begin, and are gone when cancelled, on both queues: `python -m benchmarks.chaos_cancel`.

Half of the jobs hear no signal and have a child that hears none either; the work is a program that only holds
memory, so that what is measured is the service.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from tests.service.back.conftest import settings_for
from tests.service.back.house import House
from tests.service.back.servers import Redis, until

from benchmarks.chaos_house import ROOT
from caudal.service.place import members

TRIES = int(os.environ.get("CAUDAL_CANCEL_TRIES", "100"))
AT_ONCE = 8


def main() -> None:
    for queue in sys.argv[1:] or ("embedded", "celery"):
        with tempfile.TemporaryDirectory(prefix="caudal-cancel-") as folder:
            redis = Redis().start() if queue == "celery" else None
            more = {"queue": "celery", "broker": redis.url, "celery_workers": AT_ONCE} if redis else {}
            verb = str(ROOT / "tests" / "service" / "back" / "verb.py")
            house = House(settings_for(Path(folder) / "home", program=(sys.executable, verb), **more))
            try:
                measure(queue, house.start())
            finally:
                house.close()
                if redis is not None:
                    redis.kill()


def measure(queue: str, house: House) -> None:
    house.ends(house.submit("hold", "0"))
    begins, gone, left = [], [], 0
    for _ in range(min(TRIES, 20)):
        began = time.monotonic()
        job = house.submit("hold", "0")
        until(lambda job=job: house.get(job).state in ("running", "succeeded"), what="it runs")
        begins.append(time.monotonic() - began)
        house.ends(job)
    for turn in range(0, TRIES, AT_ONCE):
        jobs = [house.submit("deaf" if (turn + i) % 2 else "hold", "60") for i in range(AT_ONCE)]
        for job in jobs:
            house.works(job)
        began = time.monotonic()
        for job in jobs:
            house.store.jobs.cancel(job.id)
        open_jobs = list(jobs)
        while open_jobs:
            for job in list(open_jobs):
                if house.get(job).state == "cancelled":
                    gone.append(time.monotonic() - began)
                    left += len(members(house.attempt(job).id))
                    open_jobs.remove(job)
            time.sleep(0.02)
    print(
        f"{queue}: submit → running median {median(begins):.2f} s, at most {max(begins):.2f} s; "
        f"cancelled and gone within 10 s: {sum(one <= 10 for one in gone)} of {len(gone)}, median "
        f"{median(gone):.2f} s, at most {max(gone):.2f} s; processes left: {left}",
        flush=True,
    )


if __name__ == "__main__":
    main()

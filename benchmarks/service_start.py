"""From submit to running on both queues, beside plain Celery: `python -m benchmarks.service_start`.

The work is a program that only holds memory, so that what is measured is the service.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from tests.service.back.conftest import settings_for
from tests.service.back.house import House
from tests.service.back.servers import Redis

from benchmarks.chaos_house import ROOT
from benchmarks.rows import Row

TRIES = int(os.environ.get("CAUDAL_START_TRIES", "30"))
LIMITS = {"embedded": 1.5, "celery": 2.0}


def row() -> Row:
    """One queue after the other, then Celery alone."""
    redis = Redis().start()
    try:
        took = {queue: _begins(queue, redis) for queue in LIMITS}
        plain = _plain(redis)
    finally:
        redis.kill()
    return Row(
        f"from submit to running, {TRIES} jobs one after another on an idle service",
        "embedded < 1.5 s, Celery < 2 s, each of them",
        all(max(took[queue]) < limit for queue, limit in LIMITS.items()),
        [
            *((f"{queue}: median, at most", _shown(seconds)) for queue, seconds in took.items()),
            ("a task of plain Celery, asked and answered: median, at most", _shown(plain)),
        ],
    )


def _shown(seconds: list[float]) -> str:
    return f"{median(seconds):.3f}, {max(seconds):.3f} s"


def _begins(queue: str, redis: Redis) -> list[float]:
    more = {"queue": "celery", "broker": redis.url} if queue == "celery" else {}
    with tempfile.TemporaryDirectory(prefix="caudal-start-") as folder:
        verb = str(ROOT / "tests" / "service" / "back" / "verb.py")
        house = House(settings_for(Path(folder) / "home", program=(sys.executable, verb), **more))
        try:
            house.start()
            house.ends(house.submit("hold", "0"))  # whatever is loaded late is loaded now
            return [_one(house) for _n in range(TRIES)]
        finally:
            house.close()


def _one(house: House) -> float:
    began = time.monotonic()
    job = house.submit("hold", "0")
    while house.get(job).state not in ("running", "succeeded"):
        time.sleep(0.005)
    took = time.monotonic() - began
    house.ends(job)
    return took


def _plain(redis: Redis) -> list[float]:
    os.environ["CAUDAL_PLAIN_CELERY"] = redis.url.replace("/0", "/1")
    words = [sys.executable, "-m", "celery", "--quiet", "--app", "benchmarks.plain_celery", "worker"]
    worker = subprocess.Popen([*words, "--loglevel", "ERROR"], cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        from benchmarks.plain_celery import answer

        took = []
        for number in range(TRIES + 1):
            began = time.monotonic()
            assert answer.delay(number).get(timeout=60, interval=0.005) == number
            took.append(time.monotonic() - began)
        return took[1:]
    finally:
        worker.terminate()
        worker.wait(30)


if __name__ == "__main__":
    made = row()
    print("met" if made.met else "not met", *(f"{name}: {value}" for name, value in made.figures), sep="\n")

"""200 clients that poll and 50 event streams, while a training runs: what they feel, and what it costs.

Server, training and clients share this machine; whose the processors were is in the row. The training alone
and under load go in turn. `CAUDAL_LOAD_SECONDS` says how long the load is in all (600 for the claim).
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import psutil
from tests.data.sets import blob_set

from benchmarks.light_clients import Felt, load
from benchmarks.rows import Row
from caudal.client import Client, Job

SECONDS = float(os.environ.get("CAUDAL_LOAD_SECONDS", "600"))
CLIENTS, STREAMS, POLL_SECONDS = 200, 50, 2.0
JOBS = 10_000
ROUNDS = 3
_STEPS = 100_000  # more than there is time for
_ALONE_SHARE = 0.3


def row() -> Row:
    """One server, one training, all clients."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        blob_set(folder / "scenes", [(128, 128)] * 12)
        server, url = _serve(folder)
        try:
            token = (folder / "home" / "token").read_text().strip()
            with Client(url, token) as client:
                return _measured(client, folder / "home", token, server)
        finally:
            server.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                server.wait(60)
            server.kill()


def _serve(folder: Path) -> tuple[subprocess.Popen[str], str]:
    words = ["serve", "--port", "0", "--home", folder / "home", "--root", f"s={folder / 'scenes'}", "--json"]
    server = subprocess.Popen(
        [sys.executable, "-m", "caudal", *map(str, words), "--ram", "2GiB"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert server.stdout is not None
    return server, json.loads(server.stdout.readline())["url"]


def _measured(client: Client, home: Path, token: str, server: subprocess.Popen[str]) -> Row:
    url = client.url
    data = client.create_dataset("own")
    _fill(home, data.id)
    listed = [_timed(lambda: next(client.jobs())) for _n in range(30)]
    roots = client._http.post("/datasets", json={"name": "scenes", "root": "s"}).json()["id"]
    began = time.monotonic()
    job = client.submit(_order(roots))
    while client.job(job.id).state not in ("running", "failed"):
        time.sleep(0.02)
    started = time.monotonic() - began
    _until_steps(client, job, 10)
    process = psutil.Process(server.pid)
    before, cold = process.memory_info().rss, SECONDS * 0.1
    _load(url, token, job.id, client.job(job.id).seen_event, cold)  # caches and pools fill
    warm = process.memory_info().rss
    first = client.job(job.id).seen_event
    felt, alone, loaded, share = Felt(), [_alone(client, job)], list[float](), list[dict[str, float]]()
    heard = list[tuple[int, list[int]]]()  # after which event each stream began, and what it got
    for _round in range(ROUNDS):
        since = client.job(job.id).seen_event
        busy, began = _processors(process), time.monotonic()
        one = _load(url, token, job.id, since, SECONDS / ROUNDS)
        seconds = time.monotonic() - began
        share.append({who: (used - busy.get(who, 0)) / seconds for who, used in _processors(process).items()})
        loaded.append(_rate_between(client, job, since))
        alone.append(_alone(client, job))
        felt.answers += one.answers
        felt.failed += one.failed
        heard += [(since, seen) for seen in one.seen]
    after = process.memory_info().rss
    client.cancel(job.id)
    true = [event.id for event in client.events(job.id, after=first)]
    lost = sum(_lost(since, seen, true) for since, seen in heard)
    p99 = statistics.quantiles(felt.answers, n=100)[98] if len(felt.answers) > 100 else float("nan")
    beside = [(a + b) / 2 for a, b in pairwise(alone)]  # before and after each load
    growth, slower = (
        after / warm - 1,
        1 - statistics.median(a / b for a, b in zip(loaded, beside, strict=True)),
    )
    listed_ms = 1000 * statistics.median(listed)
    good = p99 < 0.1 and not lost and not felt.failed and growth < 0.02 and slower < 0.05
    return Row(
        f"{CLIENTS} clients asking for a job every {POLL_SECONDS:.0f} s and {STREAMS} event streams for "
        f"{SECONDS:.0f} s, beside one training; {JOBS} jobs in the table",
        "p99 of GET /jobs/{id} < 100 ms, no lost event, memory +2 % at most, training slowed by < 5 %, "
        "10 000 jobs listed in < 50 ms, submit to running < 1.5 s",
        good and listed_ms < 50 and started < 1.5,
        [
            (
                "GET /jobs/{id}, median, p99",
                f"{1000 * statistics.median(felt.answers):.1f}, {1000 * p99:.1f} ms",
            ),
            ("answers, of them failed", f"{len(felt.answers)}, {felt.failed}"),
            ("events lost or doubled, of", f"{lost}, {sum(len(seen) for _since, seen in heard)}"),
            (
                "memory of the server",
                f"{before / 2**20:.0f}, {warm / 2**20:.0f} → {after / 2**20:.0f} MiB, {growth:+.1%}",
            ),
            (
                "training, steps/s: alone; under load",
                f"{_list(alone)}; {_list(loaded)} ({slower:+.1%} slower, median)",
            ),
            (
                f"processors busy, of {psutil.cpu_count()}: {', '.join(share[0])}",
                ", ".join(f"{statistics.median(one[who] for one in share):.3f}" for who in share[0]),
            ),
            (f"a page of {JOBS} jobs", f"{listed_ms:.1f} ms"),
            ("submit to running", f"{started:.2f} s"),
        ],
    )


def _order(dataset: str) -> dict[str, object]:
    training = {"steps": _STEPS, "batch": 8, "validate_every": _STEPS, "patience": 0}
    model = {"name": "unet", "config": {"width": 16, "depth": 3}}
    spec = {"training": training, "model": model}
    return {"verb": "train", "task": "segmentation", "data": {"dataset": dataset}, "ram": 2**30, "spec": spec}


def _fill(home: Path, dataset: str) -> None:
    """Jobs that have ended: one that was cancelled at once, and its row and events again and again."""
    import sqlalchemy as sa

    from caudal.service.ids import new_id
    from caudal.service.settings import Settings
    from caudal.service.store import open_store
    from caudal.service.store import tables as t
    from caudal.service.work import PackWork

    with open_store(Settings(home=home), migrate=False) as store:
        project = store.datasets.get(dataset).project_id
        first, _new = store.jobs.submit(project, PackWork(data="/nowhere"))
        store.jobs.cancel(first.id)
        with store.database.writing() as connection:
            job = dict(connection.execute(sa.select(t.jobs)).mappings().one())
            said = [dict(row) for row in connection.execute(sa.select(t.events)).mappings()]
            jobs = [
                job | {"id": new_id(), "number": job["number"] + n, "place_in_line": job["place_in_line"] + n}
                for n in range(1, JOBS)
            ]
            base, each = max(row["id"] for row in said), len(said)
            events = [
                row | {"id": base + n * each + i + 1, "job_id": other["id"]}
                for n, other in enumerate(jobs)
                for i, row in enumerate(said)
            ]
            connection.execute(sa.insert(t.jobs), jobs)
            connection.execute(sa.insert(t.events), events)
            for name, more in (("jobs", len(jobs)), ("line", len(jobs)), ("events", len(events))):
                counter = sa.update(t.counters).where(t.counters.c.name == name)
                connection.execute(counter.values(value=t.counters.c.value + more))


def _timed(act: object) -> float:
    began = time.perf_counter()
    act()  # type: ignore[operator]
    return time.perf_counter() - began


def _until_steps(client: Client, job: Job, steps: int) -> None:
    while (client.status(job.id).step or 0) < steps:
        assert not client.job(job.id).has_ended, client.job(job.id).error
        time.sleep(0.2)


def _alone(client: Client, job: Job) -> float:
    first = client.job(job.id).seen_event
    time.sleep(SECONDS / ROUNDS * _ALONE_SHARE)
    return _rate_between(client, job, first)


def _processors(server: psutil.Process) -> dict[str, float]:
    """Seconds of processors that each has used: the clients, the server, its worker, supervisor and work."""
    used = {"clients": sum(os.times()[:2]), "server": sum(server.cpu_times()[:2]), "others": 0.0, "work": 0.0}
    for child in server.children(recursive=True):
        with suppress(psutil.Error):
            who = "work" if "train" in child.cmdline() else "others"
            used[who] += sum(child.cpu_times()[:2])
    return used


def _list(rates: list[float]) -> str:
    return ", ".join(f"{rate:.2f}" for rate in rates)


def _rate_between(client: Client, job: Job, after: int) -> float:
    """Steps a second of the events after one."""
    times = []
    cursor = after
    while page := client._http.get(f"/jobs/{job.id}/events", params={"after": cursor, "limit": 500}).json()[
        "items"
    ]:
        cursor = page[-1]["id"]
        times += [event["time"] for event in page if event["kind"] == "step_done"]
    return (len(times) - 1) / (times[-1] - times[0])


def _load(url: str, token: str, job_id: str, last_event: int, seconds: float) -> Felt:
    head = f"Host: {url.removeprefix('http://')}\r\nAuthorization: Bearer {token}\r\n"
    poll = f"GET /api/v1/jobs/{job_id} HTTP/1.1\r\n{head}\r\n"
    listen = f"GET /api/v1/jobs/{job_id}/events/stream HTTP/1.1\r\n{head}Last-Event-ID: {last_event}\r\n\r\n"
    host, _colon, port = url.removeprefix("http://").rpartition(":")
    return load(
        (host, int(port)), poll.encode(), listen.encode(),
        polls=CLIENTS, streams=STREAMS, pause=POLL_SECONDS, seconds=seconds,
    )  # fmt: skip


def _lost(since: int, seen: list[int], true: list[int]) -> int:
    """Events after `since`, to the last that a stream got, that it did not get once; all if it got none."""
    last = seen[-1] if seen else true[-1]
    wanted = {number for number in true if since < number <= last}
    return len(wanted ^ set(seen)) + len(seen) - len(set(seen))

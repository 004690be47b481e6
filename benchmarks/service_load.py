"""200 clients that poll and 50 event streams, while a training runs: what they feel, and what it costs.

Server, training and clients share this machine. `CAUDAL_LOAD_SECONDS` says how long (600 for the claim).
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
from tests.data.sets import blob_set

from benchmarks.rows import Row
from caudal.client import Client, Job

SECONDS = float(os.environ.get("CAUDAL_LOAD_SECONDS", "600"))
CLIENTS, STREAMS, POLL_SECONDS = 200, 50, 2.0
JOBS = 10_000
_STEPS = 100_000  # more than there is time for
_ALONE_SHARE = 0.25


@dataclass
class Felt:
    """What the clients saw."""

    answers: list[float] = field(default_factory=list)
    failed: int = 0
    seen: dict[int, list[int]] = field(default_factory=dict)


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
    alone = _rate(client, job, SECONDS * _ALONE_SHARE)
    before = psutil.Process(server.pid).memory_info().rss
    asyncio.run(_load(url, token, job.id, min(10.0, SECONDS * 0.1)))  # caches are filled once
    warm = psutil.Process(server.pid).memory_info().rss
    first = client.job(job.id).seen_event
    felt = asyncio.run(_load(url, token, job.id, SECONDS))
    loaded = _rate_between(client, job, first)
    after = psutil.Process(server.pid).memory_info().rss
    client.cancel(job.id)
    true = [event.id for event in client.events(job.id, after=first)]
    lost = sum(_lost(seen, true) for seen in felt.seen.values())
    p99 = statistics.quantiles(felt.answers, n=100)[98] if len(felt.answers) > 100 else float("nan")
    growth, slower = after / warm - 1, 1 - loaded / alone
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
            ("events lost or doubled, of", f"{lost}, {sum(map(len, felt.seen.values()))}"),
            (
                "memory of the server",
                f"{before / 2**20:.0f}, {warm / 2**20:.0f} → {after / 2**20:.0f} MiB, {growth:+.1%}",
            ),
            ("training alone, under load", f"{alone:.2f}, {loaded:.2f} steps/s ({slower:+.1%} slower)"),
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


def _rate(client: Client, job: Job, seconds: float) -> float:
    first = client.job(job.id).seen_event
    time.sleep(seconds)
    return _rate_between(client, job, first)


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


async def _load(url: str, token: str, job_id: str, seconds: float) -> Felt:
    felt, until = Felt(), time.monotonic() + seconds
    headers = {"Authorization": f"Bearer {token}"}
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(
        base_url=f"{url}/api/v1", headers=headers, limits=limits, timeout=30
    ) as http:
        polls = [_poll(http, felt, job_id, until, n) for n in range(CLIENTS)]
        streams = [_listen(http, felt, job_id, until, n) for n in range(STREAMS)]
        await asyncio.gather(*polls, *streams)
    return felt


async def _poll(http: httpx.AsyncClient, felt: Felt, job_id: str, until: float, number: int) -> None:
    await asyncio.sleep(POLL_SECONDS * number / CLIENTS)
    while time.monotonic() < until:
        began = time.perf_counter()
        try:
            felt.failed += (await http.get(f"/jobs/{job_id}")).status_code != 200
        except httpx.TransportError:
            felt.failed += 1
        felt.answers.append(time.perf_counter() - began)
        await asyncio.sleep(POLL_SECONDS)


async def _listen(http: httpx.AsyncClient, felt: Felt, job_id: str, until: float, number: int) -> None:
    seen = felt.seen.setdefault(number, [])
    with suppress(TimeoutError):
        async with asyncio.timeout(max(0.0, until - time.monotonic())):
            headers = {"Last-Event-ID": "0"}
            async with http.stream("GET", f"/jobs/{job_id}/events/stream", headers=headers) as answer:
                async for line in answer.aiter_lines():
                    if line.startswith("id: "):
                        seen.append(int(line[4:]))


def _lost(seen: list[int], true: list[int]) -> int:
    """Events of the time in which a stream listened that it did not get once."""
    if not seen or not true:
        return 0
    wanted = [number for number in true if number <= seen[-1]]
    mine = [number for number in seen if number >= true[0]]
    return len(set(wanted) - set(mine)) + len(mine) - len(set(mine))

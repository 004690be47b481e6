"""Streams of events: each event once, in order, whatever is cut in between."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caudal.service.hub import Hub
from caudal.service.places import Veil
from caudal.service.problems import Refused
from caudal.service.records import StoredEvent
from caudal.service.sse import place_of
from tests.service.front.conftest import Front


def parsed(text: str) -> Iterator[tuple[str, str, dict[str, object]]]:
    """(id, event, data) of a stream."""
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and line[0] != ":")
        if "data" in fields:
            yield fields.get("id", ""), fields.get("event", ""), json.loads(fields["data"])


def test_a_stream_tells_the_whole_story_and_ends_with_the_job(front: Front) -> None:
    job = front.job()
    path = f"/jobs/{job['id']}/events/stream"
    front.post(f"/jobs/{job['id']}/cancel")
    answer = front.get(path)
    events = list(parsed(answer.text))
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert [event for _id, event, _data in events] == ["job_state", "job_state", "end"]
    assert [data["body"]["state"] for _id, _event, data in events[:2]] == ["queued", "cancelled"]  # type: ignore[index]
    rest = list(parsed(front.get(path, headers={"Last-Event-ID": events[0][0]}).text))
    assert rest == events[1:]
    last = front.get(path, headers={"Last-Event-ID": events[1][0]})
    assert last.status_code == 204  # a browser does not come back after that


def test_a_stream_of_a_job_that_goes_on_ends_after_its_time_and_can_be_taken_up(front: Front) -> None:
    job = front.job()
    text = front.get(f"/jobs/{job['id']}/events/stream").text  # limits.stream_seconds is short here
    assert [event for _id, event, _data in parsed(text)] == ["job_state"]


def test_events_in_pages_are_the_events_and_end(front: Front) -> None:
    job = front.job()
    front.post(f"/jobs/{job['id']}/cancel")
    front.post(f"/jobs/{job['id']}/retry")
    path, found, cursor = f"/jobs/{job['id']}/events", [], ""
    for _page in range(4):
        page = front.get(f"{path}?limit=1&cursor={cursor}").json()
        found += [event["id"] for event in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert cursor is None
    assert found == [event["id"] for event in front.get(path).json()["items"]]
    assert len(found) == 3
    assert [e["id"] for e in front.get(f"{path}?after={found[0]}").json()["items"]] == found[1:]
    assert front.get(f"{path}?cursor=!").status_code == 422


@pytest.mark.parametrize("header", ["x", "-1", "1.5", "١", "9" * 19, "1\n2"])
def test_a_last_id_that_is_none_is_refused(header: str) -> None:
    with pytest.raises(Refused) as refused:
        place_of(header, None)
    assert refused.value.status_code == 422
    assert place_of(None, 7) == place_of("7", None) == 7
    assert place_of("", None) == 0


class Log:
    """Events as the store gives them; ids grow with gaps."""

    def __init__(self) -> None:
        self.all: list[StoredEvent] = []

    def add(self, job: int) -> None:
        number = (self.all[-1].id if self.all else 0) + 1 + job % 2
        self.all.append(StoredEvent(id=number, job_id=str(job), attempt=1, kind="k", time=0, body={}))

    def last_id(self) -> int:
        return self.all[-1].id if self.all else 0

    def after(self, last_id: int, job_id: str | None, limit: int) -> list[StoredEvent]:
        return [e for e in self.all if e.id > last_id and job_id in (None, e.job_id)][:limit]


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 40)), min_size=1, max_size=12),
    st.integers(1, 20),
    st.sampled_from([None, "0", "1"]),
)
def test_no_reader_loses_or_doubles_an_event_however_slow_it_is(
    acts: list[tuple[int, int]], kept: int, job_id: str | None
) -> None:
    async def story() -> None:
        log = Log()
        log.add(0)
        hub = Hub(SimpleNamespace(events=log), Veil({"x": Path("/x")}), pause_seconds=0.0)  # type: ignore[arg-type]
        await hub.start()
        seen: list[int] = []
        last = 0
        for job, count in acts:
            for _n in range(count):
                log.add(job)
            for _n in range(count % 4):  # sometimes it looks, sometimes it is far behind
                frames, last = await hub.after(last, job_id)
                seen += [frame.id for frame in frames]
                await hub.news(0.001)
        newest = log.last_id()
        while last < newest:
            frames, last = await hub.after(last, job_id)
            seen += [frame.id for frame in frames]
            await hub.news(0.001)
        await hub.stop()
        assert seen == [event.id for event in log.all if job_id in (None, event.job_id)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("caudal.service.hub._KEPT", kept)
        asyncio.run(story())


def test_who_waits_for_news_of_a_job_is_woken_by_it_and_by_the_end_alone() -> None:
    async def story() -> None:
        log = Log()
        log.add(0)
        hub = Hub(SimpleNamespace(events=log), Veil({}), pause_seconds=0.0)  # type: ignore[arg-type]
        await hub.start()
        of_a_job, of_any = (asyncio.create_task(hub.news(60.0, job)) for job in ("1", None))
        await asyncio.sleep(0)  # both wait now
        log.add(2)
        await of_any
        assert not of_a_job.done()
        log.add(1)
        await of_a_job
        left = asyncio.create_task(hub.news(60.0, "1"))
        await asyncio.sleep(0)
        await hub.stop()
        await left
        await hub.news(60.0, "1")  # it is over
        assert not hub._waited

    asyncio.run(story())


def test_as_many_streams_as_are_allowed_and_no_more(front: Front) -> None:
    job = front.job()
    front.app.context.open_streams = front.app.context.serving.limits.streams
    answer = front.get(f"/jobs/{job['id']}/events/stream")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "30")

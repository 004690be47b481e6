"""What the store keeps, on SQLite and on PostgreSQL."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from caudal.service.ends import Ending
from caudal.service.errors import Conflict, NotFound, StoreAway
from caudal.service.ids import is_id, new_id
from caudal.service.records import Once, Project
from caudal.service.settings import Settings
from caudal.service.store import Machine, Store, Superseded, open_store
from caudal.service.store import tables as t
from caudal.service.store.migrate import downgrade, upgrade, version
from caudal.service.work import TrainWork

MACHINE = Machine("here", "place", 2**30, 0, 8)
WORK = TrainWork(task="hold", data=("/data",), ram="100MiB", device="cpu")


def test_migrations_go_up_to_the_tables_that_are_used_and_down_to_nothing(store: Store) -> None:
    with store.database.reading() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, t.METADATA) == []
    assert version(store.database) == "0001"
    try:
        downgrade(store.database, "base")
        with store.database.reading() as connection:
            left = set(sa.inspect(connection).get_table_names()) - {"alembic_version"}
        assert (left, version(store.database)) == (set(), "")
    finally:
        upgrade(store.database)
    assert version(store.database) == "0001"
    assert store.projects.create("again").name == "again"


def test_several_processes_may_bring_the_tables_up_at_the_same_time(tmp_path: Path) -> None:
    url, errors = f"sqlite:///{tmp_path / 'new.db'}", []

    def bring_up() -> None:
        try:
            open_store(url).close()
        except Exception as error:  # every kind is a failure of the law
            errors.append(error)

    threads = [threading.Thread(target=bring_up) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_what_is_asked_for_twice_under_one_key_is_one_job(store: Store, project: Project) -> None:
    once = Once(owner="me", key="k", fingerprint="f")
    first, new = store.jobs.submit(project.id, WORK, once=once)
    again, new_again = store.jobs.submit(project.id, WORK, once=once)
    assert (first.id, new, new_again) == (again.id, True, False)
    with pytest.raises(Conflict):
        store.jobs.submit(project.id, WORK, once=Once(owner="me", key="k", fingerprint="other"))
    somebody_else = Once(owner="you", key="k", fingerprint="f")
    assert store.jobs.submit(project.id, WORK, once=somebody_else)[0].id != first.id
    assert len(store.jobs.list()) == 2


def test_of_many_that_claim_at_once_each_job_goes_to_one(store: Store, project: Project) -> None:
    jobs = [store.jobs.submit(project.id, WORK)[0].id for _ in range(6)]
    claimed, errors = [], []

    def claim() -> None:
        while store.line.in_line():
            try:
                found = store.claims.claim(MACHINE)
            except Exception as error:
                errors.append(error)
                return
            else:
                claimed.extend([] if found is None else [found[0].id])

    threads = [threading.Thread(target=claim) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sorted(claimed) == sorted(jobs)


def test_who_claims_ends_and_cancels_at_once_never_waits_in_a_circle(
    store: Store, project: Project, settings: Settings
) -> None:
    jobs = [store.jobs.submit(project.id, WORK)[0].id for _ in range(24)]
    errors: list[Exception] = []

    def work(name: str) -> None:
        machine = Machine(name, name, 2**30, 0, 8)
        try:
            while store.line.in_line():
                found = store.claims.claim(machine)
                if found is not None:
                    store.claims.needs(found[1], 2**20, 0)
                    store.claims.end(found[1], Ending(how="succeeded"), settings)
        except Exception as error:
            errors.append(error)

    def cancel(some: list[str]) -> None:
        for job_id in some:
            try:
                store.jobs.cancel(job_id)
            except Conflict:
                pass
            except Exception as error:
                errors.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    threads += [threading.Thread(target=cancel, args=(some,)) for some in (jobs[::2], jobs[::-3])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert {job.state for job in store.jobs.list()} <= {"succeeded", "cancelled"}


def test_a_fence_that_was_passed_lets_nothing_through(
    store: Store, project: Project, settings: Settings
) -> None:
    store.jobs.submit(project.id, WORK)
    claimed = store.claims.claim(MACHINE)
    assert claimed is not None
    job, stale = claimed
    store.claims.register(stale.id, 1, 1)
    with pytest.raises(Superseded):
        store.claims.register(stale.id, 2, 2)
    assert store.claims.end(stale, Ending(how="stopped"), settings) is not None
    again = store.claims.claim(MACHINE)
    assert again is not None
    assert (again[0].id, again[1].fence) == (job.id, stale.fence + 1)
    for act in (
        lambda: store.claims.beat(stale),
        lambda: store.claims.look(stale),
        lambda: store.claims.running(stale, Path("/run")),
        lambda: store.claims.take_events(stale, [("a", 1.0, {})], 0, 10),
    ):
        with pytest.raises(Superseded):
            act()
    assert store.claims.end(stale, Ending(how="succeeded"), settings) is None
    assert store.jobs.get(job.id).state == "starting"


def test_events_are_kept_once_and_can_be_read_on_from_any_number(store: Store, project: Project) -> None:
    store.jobs.submit(project.id, WORK)
    claimed = store.claims.claim(MACHINE)
    assert claimed is not None
    job, attempt = claimed
    said = [("step_done", float(i), {"step": i}) for i in range(5)]
    assert store.claims.take_events(attempt, said, 0, 100) == (100, True)
    assert store.claims.take_events(attempt, said, 0, 100) == (100, False)  # the answer was lost on the way
    all_of_it = store.events.after(0, job.id)
    assert [event.body["step"] for event in all_of_it if event.kind == "step_done"] == list(range(5))
    ids = [event.id for event in all_of_it]
    assert ids == sorted(set(ids))
    assert (
        ids[-1] == store.events.last_id() == store.events.last_id(job.id) == store.jobs.get(job.id).seen_event
    )
    for number, last in enumerate(ids):
        assert [event.id for event in store.events.after(last, job.id)] == ids[number + 1 :]
    assert [event.id for event in store.events.tail(job.id, 2)] == ids[-2:]


def test_readers_see_event_numbers_only_in_ascending_order(store: Store, project: Project) -> None:
    attempts = []
    for _ in range(3):
        store.jobs.submit(project.id, WORK)
        claimed = store.claims.claim(MACHINE)
        assert claimed is not None
        attempts.append(claimed[1])
    start, seen, done = store.events.last_id(), [], threading.Event()

    def read() -> None:
        last = start
        while True:
            ended = done.is_set()
            found = [event.id for event in store.events.after(last)]
            seen.extend(found)
            last = max(found, default=last)
            if ended and not found:
                return

    def write(attempt) -> None:  # type: ignore[no-untyped-def]
        for i in range(12):
            store.claims.take_events(attempt, [("a", 1.0, {})] * (i % 3 + 1), i, i + 1)

    reader = threading.Thread(target=read)
    writers = [threading.Thread(target=write, args=(attempt,)) for attempt in attempts]
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    reader.join()
    assert seen == list(range(start + 1, start + 1 + 3 * 24))


def test_pages_cover_all_jobs_once_the_newest_first(store: Store, project: Project) -> None:
    made = [store.jobs.submit(project.id, WORK, name=str(i))[0].number for i in range(7)]
    pages, before = [], None
    while page := store.jobs.list(limit=3, before=before):
        pages.append([job.number for job in page])
        before = page[-1].number
    assert [len(page) for page in pages] == [3, 3, 1]
    assert [number for page in pages for number in page] == made[::-1]
    assert store.jobs.list(states=["running"]) == store.jobs.list(verb="pack") == []
    assert store.jobs.counts() == {"queued": 7}


def test_names_are_there_once_and_what_has_jobs_stays(store: Store) -> None:
    one = store.projects.create("one")
    with pytest.raises(Conflict):
        store.projects.create("one")
    two = store.projects.create("two")
    with pytest.raises(Conflict):
        store.projects.rename(two.id, "one")
    assert store.projects.rename(two.id, "three").name == "three"
    data = store.datasets.create(one.id, "d", "root", "/data", facts={"files": 3})
    assert store.datasets.get(data.id) == data
    with pytest.raises(Conflict):
        store.datasets.create(one.id, "d", "root", "/elsewhere")
    store.jobs.submit(one.id, WORK)
    with pytest.raises(Conflict):
        store.projects.delete(one.id)
    store.projects.delete(two.id)
    assert [(project.name, project.jobs) for project in store.projects.list()] == [("one", 1)]
    for missing in (store.jobs.get, store.projects.get, store.runs.get, store.models.get, store.datasets.get):
        with pytest.raises(NotFound):
            missing(new_id())


def test_keys_answers_and_the_audit_log_are_kept(store: Store) -> None:
    key = store.keys.create("ci", ["read", "run"], "hash")
    store.keys.used(key.id)
    found = store.keys.by_hash("hash")
    assert found is not None
    assert (found.scopes, found.revoked, found.last_used is not None) == (["read", "run"], None, True)
    assert store.keys.by_hash("other") is None
    assert store.keys.revoke(key.id).revoked is not None
    store.once.put("me", "k", "f", 201, {"a": 1})
    store.once.put("me", "k", "f", 500, None)  # the first answer stays
    kept = store.once.get("me", "k")
    assert kept is not None
    assert (kept.status, kept.body) == (201, {"a": 1})
    with pytest.raises(Conflict):
        store.once.put("me", "k", "other", 201, None)
    assert store.once.sweep(-1.0) == 1
    for number in range(3):
        store.audit.add("me", "job.cancel", str(number), "127.0.0.1", {"n": number})
    newest = store.audit.list(limit=2)
    assert [entry.detail["n"] for entry in newest] == [2, 1]
    assert [entry.detail["n"] for entry in store.audit.list(before=newest[-1].id)] == [0]


def test_a_success_leaves_a_run_and_a_model_and_the_most_that_was_held(
    store: Store, project: Project, settings: Settings
) -> None:
    store.jobs.submit(project.id, WORK)
    for how, peak in (("killed", 300), ("succeeded", 200)):
        claimed = store.claims.claim(MACHINE)
        assert claimed is not None
        job, attempt = claimed
        store.claims.running(attempt, Path("/runs/one"))
        result = {"metrics": {"iou": 0.5}} if how == "succeeded" else None
        ended = store.claims.end(attempt, Ending(how=how, peak_bytes={"ram": peak}, result=result), settings)
        assert ended is not None
        if how == "killed":
            assert (ended.state, ended.reason) == ("waiting", "killed")
            assert store.line.wake(ended.id, ended.version) is not None
            assert store.line.wake(ended.id, ended.version) is None
    job = store.jobs.get(job.id)
    assert (job.state, job.reason, job.peak_bytes, job.attempts) == ("succeeded", None, {"ram": 300}, 2)
    run, model = store.runs.get(job.id), store.models.list()[0]
    assert (run.folder, run.metrics, run.ended is not None) == ("/runs/one", {"iou": 0.5}, True)
    assert (model.run_id, model.folder, model.metrics) == (run.id, "/runs/one/model", {"iou": 0.5})
    tries = store.jobs.attempts(job.id)
    assert [attempt.reason for attempt in tries] == ["killed", None]
    assert store.jobs.attempts(job.id, limit=1) == tries[:1]
    assert store.jobs.attempts(job.id, after=1) == tries[1:]


def test_of_files_to_train_by_those_are_in_use_that_a_job_may_yet_need(
    store: Store, project: Project, settings: Settings
) -> None:
    for name in ("done", "failed", "waits"):
        store.jobs.submit(project.id, TrainWork(spec=Path(f"/plans/{name}/spec.toml"), ram="100MiB"))
    for how in ("succeeded", "data"):
        claimed = store.claims.claim(MACHINE)
        assert claimed is not None
        store.claims.end(claimed[1], Ending(how=how), settings)
    store.jobs.submit(project.id, WORK)
    asked = [f"/plans/{name}/spec.toml" for name in ("done", "failed", "waits", "nobody's")]
    assert store.jobs.specs_in_use(asked) == {asked[1], asked[2]}
    assert store.jobs.specs_in_use(asked[2:]) == {asked[2]}
    assert store.jobs.specs_in_use([]) == set()


def test_a_database_that_does_not_answer_is_said_to_be_away(tmp_path: Path) -> None:
    with (
        open_store("postgresql://nobody:secret@127.0.0.1:1/none", migrate=False) as store,
        pytest.raises(StoreAway) as caught,
    ):
        store.ping()
    assert "secret" not in str(caught.value)
    url = f"sqlite:///{tmp_path}/no folder/x.db"
    with open_store(url, migrate=False) as store, pytest.raises(StoreAway):
        store.ping()


def test_a_long_line_of_jobs_is_listed_and_claimed_fast(tmp_path: Path) -> None:
    import time

    with open_store(f"sqlite:///{tmp_path / 'many.db'}") as store:
        project = store.projects.create("one")
        first, _new = store.jobs.submit(project.id, WORK)
        with store.database.writing() as connection:
            row = dict(connection.execute(sa.select(t.jobs)).mappings().one())
            rows = [row | {"id": new_id(), "number": n, "place_in_line": n} for n in range(2, 10_001)]
            connection.execute(sa.insert(t.jobs), rows)
        began = time.perf_counter()
        assert len(store.jobs.list(limit=50)) == 50
        listed = time.perf_counter() - began
        claimed = store.claims.claim(MACHINE)
        assert claimed is not None
        assert claimed[0].id == first.id
        assert listed < 0.2


def test_ids_are_ids_and_sort_by_time() -> None:
    made = [new_id() for _ in range(100)]
    assert len(set(made)) == 100
    assert all(map(is_id, made))
    assert [one[:8] for one in made] == sorted(one[:8] for one in made)
    assert not any(map(is_id, ["", "../../etc/passwd", made[0].upper(), made[0] + "0", "u" * 26]))


def test_passwords_are_in_no_picture_of_the_settings() -> None:
    settings = Settings(database="postgresql://a:secret@h/d", broker="redis://:secret@h")
    assert "secret" not in repr(settings) + str(settings)
    assert Settings.from_environment(settings.environment()) == settings

"""The stream over samples: all of them once, in one order whoever computes it, in its bytes, never stuck."""

from __future__ import annotations

import gc
import shutil
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from torch.utils.data import DataLoader

import caudal
from caudal.core.errors import DoesNotFit, TooManyBroken, UnreadableFile, UsageError
from caudal.core.events import Event, SampleBroken
from caudal.core.units import MIB
from caudal.data import mapped
from caudal.data.sample_stream import SampleStream
from caudal.memory.meters import charged_bytes
from caudal.runs.samples import open_set

DRAWS = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven files of small numbered samples: read in blocks."""
    folder = tmp_path_factory.mktemp("small")
    for k in range(7):
        number = np.arange(900 * k, 900 * (k + 1))
        x = np.repeat(number[:, None], 90, 1).astype(np.float32)
        np.savez(folder / f"{k}.npz", x=x, y=number // 700)
    return folder


@pytest.fixture(scope="module")
def ragged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty files, each a sample of its own length, 40 to 120 KB: read one by one."""
    folder = tmp_path_factory.mktemp("ragged")
    draw = np.random.default_rng(0)
    for k in range(60):
        rows = int(draw.integers(300, 1000))
        np.savez(folder / f"{k:03}.npz", x=np.full((rows, 32), k, np.float32), y=np.int64(k))
    return folder


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty files, each a sample of 0.5 to 1 MB: handed out as they lie in the page cache."""
    folder = tmp_path_factory.mktemp("large")
    draw = np.random.default_rng(0)
    for k in range(20):
        rows = int(draw.integers(4000, 8000))
        x, y = np.full((rows, 32), k, np.float32), np.array(k, np.int64)
        save_file({"x": x, "y": y}, folder / f"{k:03}.safetensors")
    return folder


@pytest.mark.parametrize("files", ["small", "ragged", "large"])
def test_a_stream_that_was_closed_gives_its_memory_back_at_once(
    files: str, request: pytest.FixtureRequest
) -> None:
    """Without a collection of garbage, which comes when it comes: the next stream begins now."""
    stream = caudal.stream(request.getfixturevalue(files), 4, ram="16MiB", threads=2)
    batches = iter(stream)
    next(batches)
    running: Any = stream._running
    arena, known = weakref.ref(running._arena), gc.isenabled()
    gc.disable()
    try:
        stream.close()
        del batches, running, stream
        assert arena() is None
    finally:
        if known:
            gc.enable()


def numbers(stream: caudal.Stream, most: int = 10**9) -> list[list[int]]:
    """The first feature of every sample, batch by batch."""
    got = []
    for batch in stream:
        x = batch.numpy("x")
        first = [one[0, 0] for one in x] if hasattr(x, "ends") else x[:, 0]
        got.append([int(v) for v in first])
        if len(got) == most:
            break
    return got


def flat(batches: list[list[int]]) -> list[int]:
    return [number for batch in batches for number in batch]


@pytest.mark.parametrize("kind", ["small", "ragged"])
def test_an_epoch_gives_every_sample_once_and_the_next_another_order(
    kind: str, request: pytest.FixtureRequest
) -> None:
    data = request.getfixturevalue(kind)
    with caudal.stream(data, 16, ram="24MiB", threads=2) as stream:
        first, second = numbers(stream), numbers(stream)
    assert len(first) == len(stream) == len(second)
    assert sorted(flat(first)) == sorted(flat(second)) == list(range(6300 if kind == "small" else 60))
    assert first != second


@pytest.mark.parametrize("kind", ["small", "ragged"])
@DRAWS
@given(st.data())
def test_threads_ranks_and_resumes_do_not_change_the_sequence(
    kind: str, request: pytest.FixtureRequest, data: st.DataObject
) -> None:
    folder = request.getfixturevalue(kind)
    batch = 96 if kind == "small" else 6
    options: dict[str, Any] = {"ram": "8MiB", "seed": 3, "epochs": 2}
    whole = numbers(caudal.stream(folder, batch, threads=2, **options))
    stop = data.draw(st.integers(0, len(whole) - 1))
    threads, world = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3))
    interrupted = caudal.stream(folder, batch, threads=threads, **options)
    head = numbers(interrupted, stop) if stop else []
    state = interrupted.state_dict()
    interrupted.close()
    tails = []
    for rank in range(world):
        resumed = caudal.stream(
            folder, batch, threads=data.draw(st.integers(1, 4)), rank=rank, world_size=world, **options
        )
        resumed.load_state_dict(state)
        tails.append(numbers(resumed))
    merged = [[0] * sum(map(len, parts)) for parts in zip(*tails, strict=True)]
    for rank, tail in enumerate(tails):
        for k, part in enumerate(tail):
            merged[k][rank::world] = part
    assert head + merged == whole


def test_the_state_is_a_few_numbers(small: Path) -> None:
    import json

    assert len(json.dumps(caudal.stream(small, ram="8MiB").state_dict())) < 1024


def test_a_state_of_another_set_is_refused(small: Path, ragged: Path) -> None:
    with pytest.raises(UsageError, match="other data"):
        caudal.stream(small, ram="8MiB").load_state_dict(caudal.stream(ragged, ram="8MiB").state_dict())


@pytest.mark.parametrize("how", ["", ", transform=transforms.halved, transform_in='process'"])
def test_a_program_that_leaves_a_stream_open_ends(small: Path, how: str) -> None:
    program = f"""
import caudal
from tests.data import transforms
if __name__ == "__main__":
    batches = iter(caudal.stream({str(small)!r}, 32, ram="128MiB"{how}))
    next(batches)
"""
    ended = subprocess.run([sys.executable, "-c", program], timeout=60, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_dataloader_takes_it_and_workers_are_refused(small: Path) -> None:
    stream = caudal.stream(small, 64, ram="8MiB")
    seen = sum(len(batch["x"]) for batch in DataLoader(stream, batch_size=None))
    assert seen == 6300
    with pytest.raises(UsageError, match="worker processes"):
        next(iter(DataLoader(stream, batch_size=None, num_workers=1)))


def test_fields_are_tensors_and_ragged_ones_know_their_ends(ragged: Path) -> None:
    for batch in caudal.stream(ragged, 4, ram="8MiB"):
        x, y = batch["x"], batch["y"]
        assert isinstance(y, torch.Tensor)
        padded, mask = x.padded(-1)
        assert padded.shape == (4, int(x.lengths.max()), 32)
        assert mask.sum() == len(x.values)
        assert all((one == number).all() for one, number in zip(x, y, strict=True))
        assert (padded[~mask] == -1).all()


def test_large_samples_are_views_of_their_files_and_equal_to_copies(
    large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def content() -> list[tuple[int, bytes]]:
        found = []
        for batch in caudal.stream(large, 3, ram="24MiB", seed=2):
            x, y = batch["x"], batch["y"]
            assert len(x.values) == int(x.ends[-1])
            padded, mask = x.padded()
            assert padded[mask].equal(x.values)
            for one, number in zip(x, y.tolist(), strict=True):
                found.append((number, one.numpy().tobytes()))
            one[:] = -5  # a change in place stays with the consumer
        return found

    assert mapped.pays(open_set(str(large), "file"))
    first, again = content(), content()
    assert first == again
    monkeypatch.setattr(mapped, "pays", lambda _samples: False)
    assert content() == first


def test_what_a_consumer_changes_in_place_is_gone_in_the_next_epoch_and_is_not_held(large: Path) -> None:
    rewritten = 0
    with caudal.stream(large, 2, ram="24MiB", seed=2, epochs=6) as stream:
        before = charged_bytes()
        for batch in stream:
            for one, number in zip(batch["x"], batch["y"].tolist(), strict=True):
                assert one.eq(number).all()
                one.fill_(-5)
                rewritten += one.nbytes
        assert rewritten > 60 * MIB
        assert charged_bytes() - before < 24 * MIB


def test_a_large_sample_that_was_cut_short_is_replaced_and_kills_nobody(large: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "set"
    shutil.copytree(large, folder)
    stream = caudal.stream(folder, 4, ram="64MiB", broken_limit=0.2)
    victim = max(folder.iterdir(), key=lambda path: path.stat().st_size)  # any other can stand in for it
    with victim.open("rb+") as file:
        file.truncate(victim.stat().st_size // 2)
    seen = numbers(stream)
    assert int(victim.stem) not in flat(seen)
    assert len(flat(seen)) == 20
    assert [one.file for one in stream.broken] == [str(victim)]


@DRAWS
@given(
    st.sampled_from(["small", "ragged"]),
    st.integers(1, 200),
    st.integers(1, 24),
    st.integers(1, 3),
    st.data(),
)
def test_it_never_gets_stuck_whatever_the_budget(
    request: pytest.FixtureRequest, kind: str, batch: int, ram_mib: int, threads: int, data: st.DataObject
) -> None:
    folder = request.getfixturevalue(kind)
    try:
        stream = caudal.stream(folder, batch, ram=ram_mib * MIB, threads=threads, debug=True)
    except DoesNotFit as error:
        refused = error
    else:
        refused = None
    if refused is not None:
        assert refused.facts["least"] > ram_mib * MIB
        return
    stop = data.draw(st.integers(1, 40))
    finished = threading.Event()

    def fail() -> None:
        for _batch in stream:
            raise ZeroDivisionError

    def consume() -> None:
        if user_error:
            with pytest.raises(ZeroDivisionError):
                fail()
        else:
            numbers(stream, stop)
        stream.close()
        finished.set()

    user_error = data.draw(st.booleans())
    thread = threading.Thread(target=consume, daemon=True)
    thread.start()
    assert finished.wait(60), "the stream is stuck"
    assert stream.stats()["arena_bytes"] <= ram_mib * MIB


def test_blocks_that_are_kept_are_not_opened_epochs_ahead(small: Path) -> None:
    with caudal.stream(small, 32, ram="24MiB", epochs=200) as stream:
        batches = iter(stream)
        for _step in range(400):  # two epochs: from the second on nothing is read
            next(batches)
        running = stream._running
        assert isinstance(running, SampleStream)
        blocks = len(running._set.columns.block_ends)
        assert running.meter.blocks_read == blocks
        assert running._next_visit <= running._oldest + running._size.cells
        assert len(running._cell_of) <= running._size.cells


def test_a_batch_too_large_comes_in_parts_that_make_up_the_step(ragged: Path) -> None:
    whole = numbers(caudal.stream(ragged, 30, ram="24MiB"))
    parts = caudal.stream(ragged, 30, ram="2500KiB")
    steps: list[list[int]] = [[]]
    pieces = 0
    for batch in parts:
        steps[-1] += [int(one[0, 0]) for one in batch.numpy("x")]
        pieces += 1
        if batch.ends_step:
            steps.append([])
    assert steps[:-1] == whole
    assert pieces > len(whole)


def test_a_budget_below_one_sample_is_refused_with_the_least(ragged: Path) -> None:
    with pytest.raises(DoesNotFit, match="at least") as caught:
        caudal.stream(ragged, 4, ram="80KiB")
    least = int(caught.value.facts["least"])  # type: ignore[call-overload]
    assert numbers(caudal.stream(ragged, 1, ram=least + MIB, threads=1))


def test_a_shuffle_that_is_asked_for_is_kept_or_refused(small: Path) -> None:
    stream = caudal.stream(small, 32, ram="24MiB", shuffle="0.95")
    assert stream.plan.effective_batch >= 0.95 * 32
    with pytest.raises(DoesNotFit, match="open blocks"):
        caudal.stream(small, 32, ram="2MiB", shuffle="0.95")


def test_a_batch_is_gone_after_the_next_one(small: Path) -> None:
    stream = iter(caudal.stream(small, 32, ram="8MiB"))
    first = next(stream)
    next(stream)
    with pytest.raises(UsageError, match="asked for after"):
        first["x"]


def test_debug_mode_finds_views_that_are_kept(small: Path) -> None:
    with pytest.raises(UsageError, match="still held"):
        _kept = [batch["x"][3:5] for batch in caudal.stream(small, 32, ram="8MiB", debug=True)]
    with caudal.stream(small, 32, ram="8MiB", debug=True) as stream:
        copies = [batch["x"][3:5].clone() for batch in stream]
    assert len(copies) == len(stream)


def test_headspace_gives_one_batch_as_often_as_there_would_be_batches(small: Path) -> None:
    stream = caudal.stream(small, 32, ram="8MiB", headspace=True)
    seen = [batch.numpy("x")[:, 0].copy() for batch in stream]
    assert len(seen) == len(stream)
    assert all((one == seen[0]).all() for one in seen)


@pytest.mark.parametrize("kind", ["small", "ragged"])
def test_broken_samples_are_replaced_the_same_way_every_time_and_counted(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    import shutil

    folder = tmp_path / kind
    shutil.copytree(request.getfixturevalue(kind), folder)
    made = lambda **more: caudal.stream(folder, 16, ram="24MiB", broken_limit=0.3, **more)  # noqa: E731
    events: list[Event] = []
    stream = made(events=events.append)
    victim = folder / ("3.npz" if kind == "small" else "003.npz")
    broken_samples = set(range(2700, 3600)) if kind == "small" else {3}
    size = victim.stat().st_size
    victim.write_bytes(b"\0")  # cut after it was indexed
    first = numbers(stream)
    assert not broken_samples & set(flat(first))
    assert len(flat(first)) == (6300 if kind == "small" else 60)
    assert {b.file for b in stream.broken} == {str(victim)}
    assert all(isinstance(e, SampleBroken) for e in events)
    assert sum(e.count for e in events if isinstance(e, SampleBroken)) == len(broken_samples)
    assert size > 1


def test_a_file_that_says_nothing_of_itself_is_left_out_listed_and_counted(
    ragged: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "set"
    shutil.copytree(ragged, folder)
    (folder / "007.npz").write_bytes((folder / "007.npz").read_bytes()[:1000])
    heard: list[Event] = []
    stream = caudal.stream(folder, 8, ram="48MiB", events=heard.append)
    assert sorted(flat(numbers(stream))) == [k for k in range(60) if k != 7]
    assert [Path(one.file).name for one in stream.broken] == ["007.npz"]
    assert [type(event) for event in heard] == [SampleBroken]
    (folder / "009.npz").write_bytes(b"")
    with pytest.raises(TooManyBroken, match="2 of 60 samples"):
        caudal.stream(folder, 8, ram="48MiB")


def test_too_many_broken_samples_stop_the_run(small: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "set"
    shutil.copytree(small, folder)
    stream = caudal.stream(folder, 16, ram="24MiB")
    for k in (1, 2, 3):
        (folder / f"{k}.npz").write_bytes(b"\0")
    with pytest.raises(TooManyBroken, match="cannot be read"):
        numbers(stream)


def test_a_folder_without_samples_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match="no file of samples"):
        caudal.stream(tmp_path)

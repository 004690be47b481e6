"""The harness of the loader benchmarks is fair and honest: it counts each sample, each byte and each peer."""

import contextlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from benchmarks.loaders import harness, picture_sets, roster, rounds, sets
from benchmarks.loaders.conversions import convert
from benchmarks.loaders.harness import Child, Result, run
from benchmarks.loaders.rounds import OURS, Entry, Race
from benchmarks.peers import graphs, plain_gather
from benchmarks.peers.child import Job
from benchmarks.peers.decoded_blocks import Blocks
from benchmarks.peers.prints import Tally, photograph_number
from benchmarks.peers.sources import picture
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.windows import Window

GATHER = Child("gather", "benchmarks.peers.plain_gather", sys.executable)
MB = 10**6


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sets")


def tally(samples: list[int], batch: int) -> Tally:
    found = Tally("chips")
    for first in range(0, len(samples), batch):
        part = np.array(samples[first : first + batch], np.uint16)
        found.add({"x": np.repeat(part[:, None], 3, 1), "y": part.astype(np.int64)})
    return found


@given(st.lists(st.integers(0, 9), min_size=1), st.randoms(), st.integers(1, 5), st.integers(1, 5))
def test_a_fingerprint_tells_the_samples_and_not_their_order(samples, random, one, other) -> None:  # type: ignore[no-untyped-def]
    mixed = random.sample(samples, len(samples))
    assert tally(samples, one).checksum == tally(mixed, other).checksum
    lost = [*mixed[1:], mixed[-1]]
    assert (tally(lost, one).checksum == tally(samples, one).checksum) == (sorted(lost) == sorted(samples))


@pytest.mark.parametrize("scaled", [False, True])
def test_a_photograph_keeps_its_number_through_any_decoder_and_resizer(tmp_path: Path, scaled: bool) -> None:
    picture_sets.photographs(tmp_path, 12 / 4000)
    for number, path in enumerate(sorted(tmp_path.glob("*.jpg"))):
        x = picture(path.read_bytes(), scaled)
        assert x.shape == (224, 224, 3)
        assert photograph_number(x) == photograph_number(np.moveaxis(x / 255, -1, 0)) == number


def test_a_set_is_the_same_again_and_is_made_once(cache: Path, tmp_path: Path) -> None:
    one, again = sets.make("graphs", cache, 0.001), sets.make("graphs", tmp_path, 0.001)
    files = sorted(path.name for path in one.folder.iterdir())
    assert [(one.folder / f).read_bytes() for f in files] == [(again.folder / f).read_bytes() for f in files]
    made = (one.folder / "000.jsonl").stat().st_ino
    sets.make("graphs", cache, 0.001)
    assert (one.folder / "000.jsonl").stat().st_ino == made
    (again.folder / "set.json").unlink()  # as if it had never been finished
    assert sets.make("graphs", tmp_path, 0.001).facts == one.facts


def test_a_set_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    with contextlib.suppress(ValueError), sets.Making(tmp_path / "set") as draft:
        (draft / "half").write_text("x")
        raise ValueError
    assert list(tmp_path.iterdir()) == []


def test_loaders_in_processes_of_their_own_deliver_the_same_samples(cache: Path) -> None:
    work = sets.make("chips", cache, 0.002)
    job = Job(str(work.folder), work.samples, batch=7, seed=3, check=True)
    loader = Child("DataLoader", "benchmarks.peers.torch_dataloader", sys.executable, {"workers": 2})
    ours = Child(OURS, "benchmarks.loaders.caudal_child", sys.executable, {"ram": "64MiB"})
    results = [run(child, job) for child in (GATHER, loader, ours)]
    assert [result.failed for result in results] == ["", "", ""]
    assert [result.samples for result in results] == [work.samples] * 3
    assert len({result.checksum for result in results}) == 1


@pytest.mark.parametrize("in_group", [True, False])
def test_what_a_loader_holds_is_seen_above_its_base(
    cache: Path, in_group: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not in_group:
        monkeypatch.setattr(harness, "_group", lambda _limit: contextlib.nullcontext())
    work = sets.make("tensors", cache, 0.06)  # all of it is read into memory
    whole = work.samples * work.sample_bytes
    result = run(GATHER, Job(str(work.folder), samples=200, batch=8, consumer="read", warm=8))
    assert result.failed == ""
    assert whole <= result.above_bytes <= whole + 40 * MB
    assert result.samples >= 200
    assert result.seconds > 0
    assert result.first_batch_seconds > 0


@pytest.mark.cgroup
def test_a_loader_that_its_group_kills_is_reported_as_killed(cache: Path) -> None:
    work = sets.make("tensors", cache, 0.06)
    try:
        result = run(GATHER, Job(str(work.folder), samples=200, batch=8), limit_bytes=64 * MB)
    except RuntimeError as error:
        pytest.skip(str(error))
    assert result.failed.startswith("killed for want of memory")
    assert result.rate == 0


def test_a_loader_that_raises_is_reported_with_its_last_words(cache: Path) -> None:
    work = sets.make("tensors", cache, 0.06)
    result = run(Child("none", GATHER.module, sys.executable), Job(str(work.folder / "missing"), 1, 1))
    assert "FileNotFoundError" in result.failed


def entry(label: str) -> Entry:
    return Entry(Child(label, "", ""), Job("", 1, 1))


def test_only_loaders_of_the_same_round_are_compared() -> None:
    def result(label: str, rate: float, peak: int = 0) -> Result:
        return Result(label, samples=int(rate), seconds=1, peak_bytes=peak)

    race = Race([entry(OURS), entry("a"), entry("b"), entry("dead")], 1.0)
    race.results = {
        OURS: [result(OURS, 30), result(OURS, 3000)],
        "a": [result("a", 10), result("a", 2000)],
        "b": [result("b", 15, 500), result("b", 1000, 500)],
        "dead": [result("dead", 9999), Result("dead", failed="killed")],
    }
    assert race.ratios(OURS) == [2.0, 1.5]
    assert race.ratio(OURS) == 1.75
    assert race.ratios(OURS, race.peers(100)) == [3.0, 1.5]
    text = dict(race.figures())
    assert text["dead"] == "did not finish, 1 times: killed"


def test_a_loader_that_fails_twice_is_not_run_again_and_keeps_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runs: list[str] = []

    def fake(child: Child, *_: object) -> Result:
        runs.append(child.label)
        return Result(child.label, 10, 1.0) if child.label == OURS else Result(child.label, failed="killed")

    monkeypatch.setattr(rounds, "run", fake)
    found = rounds.race([entry(OURS), entry("dead")], 1.0, rounds=4, check=False)
    assert runs == [OURS, "dead", OURS, "dead", OURS, OURS]
    assert len(found.results["dead"]) == 4
    assert found.peers() == []


def test_a_loader_that_delivers_other_samples_is_named() -> None:
    race = Race([entry(OURS), entry("a"), entry("b")], 1.0)
    race.checks = {x: Result(x, samples=5, checksum=1 if x != "b" else 2, mean=0.5) for x in (OURS, "a", "b")}
    assert race.disagreeing() == ["b"]
    assert "b: 5 others" in race.agreement()


def test_a_peer_that_cannot_run_is_named_with_the_reason(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAUDAL_PEERS", str(tmp_path))
    roster.why_not.cache_clear()
    work = sets.make("graphs", cache, 0.001)
    wanted = [roster.Peer("gather", "plain_gather"), roster.Peer("SPDL", "spdl_threads", "torch")]
    found, left_out = roster.peers(wanted, work, Job("", 1, 1), cache)
    roster.why_not.cache_clear()
    assert [one.label for one in found] == ["gather"]
    assert len(left_out) == 1
    assert left_out[0].startswith("SPDL: no environment")


@pytest.fixture(scope="module")
def strips_and_tiles(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    paths = []
    for name in ("small_lzw", "tiled_deflate", "tiled_zstd"):
        folder = tmp_path_factory.mktemp(name)
        sets.SETS[name](folder, 0.001)
        paths.append(folder / "000.tif")
    return paths


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_the_plain_block_reader_reads_what_gdal_reads(
    strips_and_tiles: list[Path], data: st.DataObject
) -> None:
    path = data.draw(st.sampled_from(strips_and_tiles))
    with rasterio.open(path) as file:
        row, col = (data.draw(st.integers(0, file.height - 128)) for _axis in range(2))
        expected = np.moveaxis(file.read(window=Window(col, row, 128, 128)), 0, -1)
    assert np.array_equal(Blocks(str(path)).window(row, col, 128), expected)


def test_the_plain_gather_joins_graphs_that_can_be_taken_apart_again(cache: Path) -> None:
    folder = sets.make("graphs", cache, 0.001).folder
    single, gather = graphs.read(str(folder)), plain_gather.Graphs(str(folder))
    wanted = np.array([0, 3, 4, len(single) - 1])
    batch = gather(wanted)
    assert batch.edges.max() == len(batch.x) - 1  # nodes count through the batch
    parts = plain_gather.columns(batch)
    for place, number in enumerate(wanted):
        x, edges, y = single[number]
        assert np.array_equal(parts["x"][place], x)
        assert np.array_equal(parts["edges"][place], edges)
        assert parts["y"][place] == y


WRITER = """
import json, sys
job = json.loads(sys.argv[2])
assert sys.argv[1] == "convert", sys.argv
open(job["own"] + "/copy", "w").write(job["set"])
"""


def test_a_conversion_is_made_once_a_set_and_a_failed_one_not_at_all(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "writer.py").write_text(WRITER)
    (tmp_path / "breaker.py").write_text("raise OSError('no room')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    work = sets.make("graphs", cache, 0.001)
    first = convert("writer", sys.executable, work, tmp_path)
    assert (first.folder / "copy").read_text() == str(work.folder)
    assert first.file_bytes == len(str(work.folder))
    assert convert("writer", sys.executable, work, tmp_path) == first
    facts = json.loads((first.folder / "conversion.json").read_text())
    (first.folder / "conversion.json").write_text(json.dumps(facts | {"set": {}}))  # of another set
    assert convert("writer", sys.executable, work, tmp_path) != first
    with pytest.raises(RuntimeError, match="no room"):
        convert("breaker", sys.executable, work, tmp_path)
    assert not any(path.name.startswith(".") for path in tmp_path.iterdir())

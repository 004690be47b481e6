"""The rows of long runs see what they claim to see: growth, kills, wrong samples, wrong accounts."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import simplejpeg
from benchmarks.endurance import Pictures, all_faults, faults_of
from benchmarks.endurance_child import Account, Roll, account
from benchmarks.loaders import picture_sets
from benchmarks.loaders.harness import Result
from benchmarks.loaders.sets import WorkSet

from benchmarks import endurance

MIB = 2**20
PICTURES = 40


def drain(tmp_path: Path, samples: int, ram: str, group_bytes: int) -> Result:
    folder = endurance.sparse_set(tmp_path / str(samples), samples)
    try:
        return endurance.drain(folder, 4, ram, 0.2, group_bytes)
    except RuntimeError as error:
        pytest.skip(str(error))


def test_a_sparse_set_holds_its_numbers_and_hardly_takes_disk(tmp_path: Path) -> None:
    files = sorted(endurance.sparse_set(tmp_path / "set", 7, file_samples=3).iterdir())
    found = [np.load(path, mmap_mode="r") for path in files]
    assert [len(x) for x in found] == [3, 3, 1]
    assert all(x[0].nbytes == endurance.SAMPLE_BYTES for x in found)
    for end in (0, -1):
        assert np.concatenate([x[:, end] for x in found]).tolist() == list(range(7))
    assert sum(path.stat().st_blocks * 512 for path in files) < 7 * endurance.SAMPLE_BYTES / 10


@pytest.mark.cgroup
def test_a_larger_set_takes_no_more_memory(tmp_path: Path) -> None:
    results = {samples: drain(tmp_path, samples, "48MiB", 384 * MIB) for samples in (64, 512)}
    assert [one.failed for one in results.values()] == ["", ""]
    assert min(one.samples for one in results.values()) > 0
    assert endurance.growth(results) <= 0.05
    assert max(one.above_bytes for one in results.values()) <= 48 * MIB


@pytest.mark.cgroup
def test_a_group_that_is_too_small_is_told(tmp_path: Path) -> None:
    assert "killed" in endurance._told(1, drain(tmp_path, 64, "48MiB", 32 * MIB))


def test_growth_is_of_the_largest_set_over_the_smallest() -> None:
    peaks = {16: 300, 1: 200, 64: 210}
    results = {size: Result("", peak_bytes=peak) for size, peak in peaks.items()}
    assert endurance.growth(results) == pytest.approx(0.05)


def call(roll: Roll, samples: list[int], epoch: int = 0, first: int | None = None) -> None:
    x = np.repeat(np.array(samples, np.int32)[:, None], 5, 1)
    x[0, 0] = x[0, 0] if first is None else first
    batch = SimpleNamespace(samples=np.array(samples), epoch=epoch, numpy=lambda _name: x)
    roll.check(batch)


def test_a_sample_that_is_not_its_own_or_comes_twice_or_not_at_all_is_noticed() -> None:
    roll = Roll(4)
    call(roll, [2, 0])
    with pytest.raises(ValueError, match="hold"):
        call(roll, [1, 3], first=3)
    with pytest.raises(ValueError, match="came last"):
        call(roll, [0])
    call(roll, [3])
    with pytest.raises(ValueError, match="came last"):
        call(roll, [1], epoch=1)  # it did not come in epoch 0
    call(roll, [3, 0], epoch=1)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    draw, folder = np.random.default_rng(1), tmp_path_factory.mktemp("photographs")
    canvas = draw.standard_normal((1024, 1024, 3), np.float32)
    for number in range(PICTURES):
        data = simplejpeg.encode_jpeg(picture_sets._photograph(draw, [canvas], number), 90)
        (folder / f"{number:05d}.jpg").write_bytes(data)
    work = WorkSet("photographs", folder, {"samples": PICTURES})
    return endurance.picture_sets(work, tmp_path_factory.mktemp("sets"), 0.1, 0.02)


@pytest.fixture(scope="module")
def found(pictures: Pictures) -> dict[str, list[Account]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", "")  # to be put back, as the child sets it
        return {
            label: [account(folder, "256MiB", 0.15) for _run in range(1 + (label == "corrupt"))]
            for label, folder in pictures.folders.items()
        }


def test_broken_and_slow_samples_are_accounted_for(
    pictures: Pictures, found: dict[str, list[Account]]
) -> None:
    assert pictures.samples == PICTURES
    assert (len(pictures.corrupt), len(pictures.slow)) == (4, 1)
    assert all_faults(pictures, found) == []
    assert len(found["slow"][0].broken) == 4


def test_substitutes_that_differ_between_runs_are_a_fault(
    pictures: Pictures, found: dict[str, list[Account]]
) -> None:
    one, order = found["corrupt"][1], found["sound"][0].samples
    at = next(k for k, n in enumerate(order) if n in pictures.corrupt)
    other = next(n for n in order if n not in pictures.corrupt and n != one.samples[at])
    samples = [*one.samples[:at], other, *one.samples[at + 1 :]]
    changed = dataclasses.replace(one, samples=samples, numbers=samples)
    assert faults_of(changed, order, pictures.corrupt) == []
    assert all_faults(pictures, found | {"corrupt": [found["corrupt"][0], changed]}) == [
        "corrupt: other samples than in the run before"
    ]


RIGHT = Account([3, 0, 0, 2], [3, 0, 0, 2], [("00001.jpg", 1, 2)], 1.0, 1.0, 0.1, 2.0)
ORDER = [3, 0, 1, 2]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"numbers": [3, 0, 2, 2]}, "not the samples that they are said to be"),
        ({"broken": []}, "0 files listed"),
        ({"broken": [("00002.jpg", 1, 2)]}, "1 files listed"),
        ({"samples": [3, 0, 1, 2]}, "a corrupt sample was delivered"),
        ({"samples": [3, 0, 0]}, "3 samples delivered"),
        ({"samples": [3, 3, 0, 2]}, "a sound sample was replaced"),
    ],
)
def test_an_account_that_is_wrong_is_a_fault(change: dict[str, list[int]], fault: str) -> None:
    assert faults_of(RIGHT, ORDER, frozenset({1})) == []
    wrong = dataclasses.replace(RIGHT, **({"numbers": change["samples"]} if "samples" in change else {}))
    wrong = dataclasses.replace(wrong, **change)
    assert [fault in found for found in faults_of(wrong, ORDER, frozenset({1}))] == [True]

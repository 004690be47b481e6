"""A user's function between stream and loop: the same samples wherever it runs, and inside the budget."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import caudal
from caudal.core.errors import DataError, DoesNotFit, UsageError, WorkerDied
from caudal.core.units import MIB
from caudal.data.transform.function import Transform
from caudal.data.transform.probe import belongs_in_process
from caudal.data.transform.process import Worker
from caudal.memory.meters import charged_bytes
from tests.data import transforms
from tests.data.sets import write_tiff

PLACES = ("threads", "process")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three files of numbered samples, read in blocks."""
    folder = tmp_path_factory.mktemp("small")
    for k in range(3):
        number = np.arange(400 * k, 400 * (k + 1))
        np.savez(folder / f"{k}.npz", x=np.repeat(number[:, None], 90, 1).astype(np.float32), y=number)
    return folder


@pytest.fixture(scope="module")
def ragged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty files, each a sample of its own length."""
    folder = tmp_path_factory.mktemp("ragged")
    draw = np.random.default_rng(0)
    for k in range(40):
        x = draw.normal(size=(int(draw.integers(200, 900)), 32)).astype(np.float32)
        np.savez(folder / f"{k:03}.npz", x=x, y=np.int64(k))
    return folder


def by_sample(stream: caudal.Stream, most: int = 10**9) -> list[tuple[int, dict[str, np.ndarray]]]:
    """Copies of the samples in the order in which they come."""
    got = []
    for batch in itertools.islice(stream, most):
        fields = {name: batch.numpy(name) for name in batch}
        for k, number in enumerate(batch.samples.tolist()):
            got.append((number, {name: np.array(found[k]) for name, found in fields.items()}))
    stream.close()
    return got


def same(left: list[Any], right: list[Any]) -> bool:
    return len(left) == len(right) and all(
        a == b
        and one.keys() == other.keys()
        and all(one[n].dtype == other[n].dtype and np.array_equal(one[n], other[n]) for n in one)
        for (a, one), (b, other) in zip(left, right, strict=True)
    )


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize(
    ("kind", "function"),
    [("small", transforms.halved), ("ragged", transforms.halved), ("ragged", transforms.cropped)],
)
def test_what_comes_out_is_what_the_function_gives_for_each_sample(
    kind: str, function: Callable[..., Any], where: str, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(kind)
    plain = dict(by_sample(caudal.stream(folder, 16, ram="128MiB", shuffle=False)))
    got = by_sample(caudal.stream(folder, 16, ram="128MiB", transform=function, transform_in=where))  # type: ignore[arg-type]
    assert sorted(number for number, _sample in got) == sorted(plain)
    expected = [
        (number, {name: np.asarray(value) for name, value in function(plain[number]).items()})
        for number, _sample in got
    ]
    assert same(got, expected)


def test_random_numbers_belong_to_the_sample_and_the_epoch_whoever_draws_them(small: Path) -> None:
    def run(**how: Any) -> list[tuple[int, dict[str, np.ndarray]]]:
        return by_sample(caudal.stream(small, 50, ram="128MiB", transform=transforms.noisy, epochs=2, **how))

    first = run(transform_in="threads", threads=1)
    assert same(first, run(transform_in="threads", threads=3))
    assert same(first, run(transform_in="process"))
    epochs = [dict(first[:1200]), dict(first[1200:])]
    assert not np.array_equal(epochs[0][5]["x"], epochs[1][5]["x"])


@pytest.mark.parametrize("where", PLACES)
def test_a_run_that_is_resumed_gives_what_it_would_have_given(small: Path, where: str) -> None:
    def make() -> caudal.Stream:
        return caudal.stream(small, 50, ram="128MiB", transform=transforms.noisy, transform_in=where)  # type: ignore[arg-type]

    whole, begun = by_sample(make()), make()
    head = []
    for batch in itertools.islice(begun, 5):
        head += [
            (number, {"x": batch.numpy("x")[k].copy()}) for k, number in enumerate(batch.samples.tolist())
        ]
    state = begun.state_dict()
    begun.close()
    rest = make()
    rest.load_state_dict(state)
    assert same(head + by_sample(rest), whole)


def test_slow_python_moves_to_a_process_and_native_work_stays(small: Path) -> None:
    assert belongs_in_process(lambda: transforms.stubborn({"x": np.zeros(3)}), processors=2)
    assert not belongs_in_process(lambda: transforms.patient({"x": np.zeros(3)}), processors=2)
    assert not belongs_in_process(lambda: transforms.stubborn({"x": np.zeros(3)}), processors=1)


@pytest.mark.parametrize("where", PLACES)
def test_an_error_in_the_function_reaches_the_loop_and_names_the_sample(small: Path, where: str) -> None:
    stream = caudal.stream(
        small,
        50,
        ram="128MiB",
        shuffle=False,
        transform=transforms.picky,
        transform_in=where,  # type: ignore[arg-type]
    )
    with pytest.raises(ZeroDivisionError, match="no seventeen") as raised:
        by_sample(stream)
    assert any("sample 17" in note for note in raised.value.__notes__)


def test_a_process_that_is_killed_is_an_error_that_says_so(small: Path) -> None:
    stream = caudal.stream(
        small, 50, ram="128MiB", shuffle=True, seed=3, transform=transforms.doomed, transform_in="process"
    )
    with pytest.raises(WorkerDied, match="signal 9"):
        by_sample(stream)


def test_shapes_that_differ_are_refused_before_or_when_they_come(small: Path) -> None:
    with pytest.raises(DataError, match="for others"):
        by_sample(caudal.stream(small, 50, ram="128MiB", transform=transforms.uneven))


def test_a_function_that_no_process_can_find_stays_in_threads_and_says_why(small: Path) -> None:
    local = lambda sample: transforms.stubborn(sample)  # noqa: E731 - it has to be nameless
    stream = caudal.stream(small, 50, ram="128MiB", transform=local)
    assert any("blocks other threads" in note for note in stream.plan.notes)
    assert len(by_sample(stream)) == 1200
    with pytest.raises(UsageError, match="process of its own"):
        caudal.stream(small, 50, ram="128MiB", transform=local, transform_in="process")


def test_a_budget_that_leaves_nothing_for_reading_is_refused(small: Path) -> None:
    with pytest.raises(DoesNotFit, match="needs at least"):
        caudal.stream(small, 1200, ram="1MiB", transform=transforms.halved)


def test_patches_are_transformed_and_the_whole_stays_in_the_budget(tmp_path: Path) -> None:
    pixels = np.arange(512 * 512 * 3, dtype=np.uint16).reshape(512, 512, 3)
    write_tiff(tmp_path / "a.tif", pixels, tiled=True, blockxsize=128, blockysize=128)

    def shrunk(sample: dict[str, Any]) -> dict[str, Any]:
        return {"image": sample["image"][::2, ::2].astype(np.float32)}

    stream = caudal.stream(tmp_path, 4, ram="48MiB", patch_px=64, transform=shrunk, threads=2)
    assert stream.plan.arena_bytes <= 48 * MIB
    shapes = {tuple(batch["image"].shape) for batch in stream}
    assert shapes == {(4, 32, 32, 3)}


def test_closing_in_the_middle_ends_threads_and_process(small: Path) -> None:
    stream = caudal.stream(small, 50, ram="128MiB", transform=transforms.stubborn, transform_in="process")
    next(iter(stream))
    stream.close()
    worker = Worker(Transform(transforms.halved, 0))
    assert 0 < worker.charged < 64 * MIB
    pid = worker.pid
    worker.close()
    assert charged_bytes(pid) == 0

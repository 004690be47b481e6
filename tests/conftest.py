"""What every test may ask for."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from caudal.runs.machine import settle

settle()  # before any test imports torch

_ALL_PROCESSORS = {"benchmarks", "cli", "data", "e2e", "memory"}
"""Folders whose tests have every processor, as a user's runs have."""
FREE_BYTES = 5 * 2**30  # two processes' worst at one time, measured, and as much again


def pytest_sessionstart(session: pytest.Session) -> None:
    """Say at once what would else be dozens of failures that do not name the disk."""
    if hasattr(session.config, "workerinput"):  # it began, so there was enough
        return
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if free < FREE_BYTES:
        pytest.exit(
            f"The tests need {FREE_BYTES >> 30} GiB of free disk in {folder}, and {free >> 20} MiB are free. "
            "Free some, or set TMPDIR to a folder of another disk.",
            returncode=3,
        )


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Indexes are kept below the tests' own folder; nothing of the user's is read or changed."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data: `CAUDAL_TEST_DATA`, else `../shared/data` beside the repository."""
    default = Path(__file__).resolve().parents[1] / ".." / "shared" / "data"
    path = Path(os.environ.get("CAUDAL_TEST_DATA", default)).resolve()
    if not path.is_dir():
        reason = f"no real data at {path}; set CAUDAL_TEST_DATA"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return path


TINY_TRAINING = {"steps": 60, "batch": 8, "learning_rate": 5e-3, "average": 10, "validate_every": 20}
TINY_MODEL = {"name": "unet", "config": {"width": 8, "depth": 2, "stem": 1}}


@pytest.fixture(scope="session")
def tiny_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten small scenes with bright squares to find, in a folder whose name has a space and an accent."""
    from tests.data.sets import blob_set

    return blob_set(tmp_path_factory.mktemp("niños y más"), [(96, 96)] * 6 + [(70, 130), (130, 64)] * 2)


@pytest.fixture(scope="session")
def warm_run() -> Iterator[Callable[[Any], list[dict[str, Any]]]]:
    """A stand-in for `probe._run` that need not load what a run loads."""
    from tests.warm_probes import warm_probes

    with warm_probes() as run:
        yield run


@pytest.fixture(scope="module")
def warm(warm_run: Callable[[Any], list[dict[str, Any]]]) -> Iterator[None]:
    """Plans of a module's tests take their measurements from there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("caudal.runs.probe._run", warm_run)
        yield


@pytest.fixture(autouse=True, scope="module")
def _one_processor(request: pytest.FixtureRequest) -> Iterator[None]:
    """Small computations beside each other, with a thread on every processor, wait for half of their time."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if not worker or request.path.relative_to(Path(__file__).parent).parts[0] in _ALL_PROCESSORS:
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(allowed)[int(worker.removeprefix("gw")) % len(allowed)]})
    yield
    os.sched_setaffinity(0, allowed)


@pytest.fixture(scope="session")
def tiny_run(
    tiny_set: Path,
    tmp_path_factory: pytest.TempPathFactory,
    warm_run: Callable[[Any], list[dict[str, Any]]],
) -> Path:
    """A finished run on the tiny set."""
    from caudal.runs.verbs.plan import make_spec
    from caudal.runs.verbs.train import train

    out = tmp_path_factory.mktemp("runs") / "tiny run"
    spec = make_spec("segmentation", tiny_set, ram="1GiB", training=TINY_TRAINING, model=TINY_MODEL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("caudal.runs.probe._run", warm_run)
        train(spec, out=out)
    return out


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 3 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], capture_output=True
        ).returncode
    )
    if not mounted:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)

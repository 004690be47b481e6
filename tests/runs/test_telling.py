"""Every verb tells that it begins, how far it is, once from nothing to all, and how it ended."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import caudal
from caudal.cli.entry import main
from caudal.core.errors import DataError
from caudal.core.events import Event, PartDone, RunEnded, RunStarted, TileDone
from caudal.runs.watched import EVENTS
from tests.runs.stored_scenes import pairs, untrained


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pairs(tmp_path_factory.mktemp("scenes"), (48, 64), (40, 1200), (64, 64))


def goes_once_from_nothing_to_all(heard: list[Event], kind: type[TileDone] | type[PartDone]) -> int:
    """What is said of how far it is; gives how much there was to do."""
    assert isinstance(heard[-1], RunEnded)
    assert heard[-1].outcome == "succeeded"
    assert heard[-1].peak_bytes["ram"] > 0
    (started,) = (event for event in heard if isinstance(event, RunStarted))
    said = [(event.done, event.total) for event in heard if isinstance(event, kind)]
    total = started.total_steps
    assert said[-1] == (total, total)
    assert {of for _done, of in said} == {total}
    assert [done for done, _of in said] == sorted(done for done, _of in said)
    assert heard.index(started) < min(k for k, event in enumerate(heard) if isinstance(event, kind))
    return total


def test_a_prediction_of_several_rasters_counts_the_tiles_of_all(
    model: Path, scenes: Path, tmp_path: Path
) -> None:
    heard: list[Event] = []
    found = caudal.predict(
        model, scenes / "images", out=tmp_path / "maps", ram="1GiB", listeners=[heard.append]
    )
    assert goes_once_from_nothing_to_all(heard, TileDone) == 5
    (started,) = (event for event in heard if isinstance(event, RunStarted))
    assert (started.verb, started.task, started.device) == ("predict", "segmentation", "cpu")
    assert (started.predicted_bytes, started.budget_bytes) == (found.predicted_bytes, found.budget_bytes)


def test_an_evaluation_counts_the_tiles_of_all(model: Path, scenes: Path) -> None:
    heard: list[Event] = []
    caudal.evaluate(model, scenes / "images", masks=scenes / "masks", ram="1GiB", listeners=[heard.append])
    assert goes_once_from_nothing_to_all(heard, TileDone) == 5


def test_an_explanation_counts_pictures(model: Path, scenes: Path, tmp_path: Path) -> None:
    pytest.importorskip("captum")
    heard: list[Event] = []
    caudal.explain(
        model, scenes / "images", out=tmp_path / "why.html", methods=["hirescam"], most=2, ram="1GiB",
        listeners=[heard.append],
    )  # fmt: skip
    assert goes_once_from_nothing_to_all(heard, PartDone) == 2


def test_a_pack_counts_samples(tmp_path: Path) -> None:
    source, heard = tmp_path / "source", list[Event]()
    source.mkdir()
    for number in range(3):
        np.save(source / f"{number}.npy", np.arange(12, dtype=np.float32))
    caudal.pack(source, out=tmp_path / "pack", samples="file", listeners=[heard.append])
    assert goes_once_from_nothing_to_all(heard, PartDone) == 3


def test_what_ends_early_says_so(model: Path, scenes: Path, tmp_path: Path) -> None:
    heard: list[Event] = []
    with pytest.raises(DataError):
        caudal.predict(model, scenes / "masks", out=tmp_path / "maps", ram="1GiB", listeners=[heard.append])
    assert isinstance(heard[-1], RunEnded)
    assert (heard[-1].outcome, heard[-1].reason) == ("failed", "data")
    assert "1 bands" in heard[-1].error


def test_the_command_appends_what_happens_to_the_file_that_its_watcher_named(
    model: Path,
    scenes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    told = tmp_path / "events.jsonl"
    monkeypatch.setenv(EVENTS, str(told))
    words = ["caudal", "predict", str(model), str(scenes / "images"), "--out", str(tmp_path / "maps")]
    for number in (1, 2):
        monkeypatch.setattr("sys.argv", [*words, "--ram", "1GiB", "--json"])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
        lines = [json.loads(line) for line in told.read_text().splitlines()]
        assert [line["kind"] for line in lines].count("run_started") == number
        assert [line["kind"] for line in lines][-1] == "run_ended"
    assert capsys.readouterr().out.count("\n") == 2

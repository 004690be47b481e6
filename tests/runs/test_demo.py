"""Laws of the demo: the whole way in one folder, which is its own, continued and never overwritten."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from caudal.core.errors import Interrupted, UsageError
from caudal.core.events import Event, RunStarted, StepDone, TileDone
from caudal.runs.result import Result
from caudal.runs.verbs.demo import STEPS, demo
from caudal.training.settings import TrainingSettings

TINY: dict[str, Any] = {
    "scenes": 5,
    "scene_px": 96,
    "raster_px": (160, 224),
    "training": {"steps": 4, "batch": 4, "validate_every": 2},
    "device": "cpu",
}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result, list[Event]]:
    """A demo that was stopped after two steps and gone on with."""
    out = tmp_path_factory.mktemp("demo") / "out"
    stop, events = threading.Event(), list[Event]()

    def stop_early(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == 2:
            stop.set()

    with pytest.raises(Interrupted):
        demo(out, [stop_early], stop=stop, **TINY)
    return out, demo(out, [events.append], **TINY), events


def test_an_unfinished_demo_goes_on_where_it_stopped(done: tuple[Path, Result, list[Event]]) -> None:
    _out, _result, events = done
    started = [event for event in events if isinstance(event, RunStarted)]
    assert [(event.verb, event.step) for event in started] == [("train", 2), ("predict", 0)]
    assert [event.step for event in events if isinstance(event, StepDone)] == [3, 4]


def test_a_demo_leaves_scenes_a_run_a_report_and_a_map(done: tuple[Path, Result, list[Event]]) -> None:
    out, result, events = done
    assert len(list((out / "scenes/images").glob("*.tif"))) == 5
    assert "Example maps" in (out / "run/report.html").read_text(encoding="utf-8")
    assert any(isinstance(event, TileDone) for event in events)
    with rasterio.open(out / "county.tif") as raster, rasterio.open(out / "county_mask.tif") as made:
        assert (made.height, made.width) == (160, 224)
        assert (made.crs, made.transform) == (raster.crs, raster.transform)
        assert set(np.unique(made.read(1))) <= {0, 1}
    assert (result.run, result.output) == (str(out / "run"), str(out / "county_mask.tif"))


def test_the_result_tells_of_training_and_of_the_map(done: tuple[Path, Result, list[Event]]) -> None:
    _out, result, _events = done
    assert result.verb == "demo"
    assert result.metrics is not None
    assert {"iou", "dice", "coverage"} <= set(result.metrics)
    assert result.metrics["coverage"] == 1.0
    for figures in (result.predicted_bytes, result.peak_bytes, result.budget_bytes):
        assert figures is not None
        assert 0 < figures["ram"] <= 2**30


def test_a_finished_demo_is_told_and_left_alone(done: tuple[Path, Result, list[Event]]) -> None:
    out, _result, _events = done
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    with pytest.raises(UsageError, match="finished"):
        demo(out, **TINY)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == before


def test_a_demo_of_other_settings_is_not_mixed_in(done: tuple[Path, Result, list[Event]]) -> None:
    out, _result, _events = done
    with pytest.raises(UsageError, match="other settings"):
        demo(out, seed=1, **TINY)


def test_a_map_that_is_missing_is_made_without_training_again(
    done: tuple[Path, Result, list[Event]],
) -> None:
    out, result, _events = done
    (out / "county_mask.tif").unlink()
    events: list[Event] = []
    again = demo(out, [events.append], **TINY)
    assert not any(isinstance(event, StepDone) for event in events)
    assert (out / "county_mask.tif").is_file()
    assert again.metrics is not None
    assert result.metrics is not None
    assert again.metrics["iou"] == result.metrics["iou"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_is_no_demo_is_refused_and_untouched(kind: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    mine = out if kind == "file" else out / "mine.txt"
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("mine")
    with pytest.raises(UsageError, match="no demo"):
        demo(out, **TINY)
    assert mine.read_text() == "mine"
    assert not list(tmp_path.rglob("demo.json"))


def test_the_demo_trains_shorter_than_a_run_does() -> None:
    assert TrainingSettings().steps / 2 > STEPS

"""Predictions of trained models, and runs that were killed, teach the next plan of their kind."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import caudal
from caudal.cli import entry
from caudal.core.events import JsonLines, MemoryRead
from caudal.core.units import MIB, Bytes
from caudal.memory import margin
from caudal.memory.plan import Holder, MemoryPlan
from caudal.runs import killed
from caudal.runs.loading import load_model
from caudal.runs.supervisor import Ending
from tests.runs.stored_scenes import untrained


@pytest.fixture(autouse=True)
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/caudal/predictions"


def test_an_inference_notes_what_it_took_and_the_next_one_sets_aside_what_was_lacking(
    tmp_path: Path, notes: Path
) -> None:
    model, image = untrained(tmp_path / "run"), tmp_path / "image.png"
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(image)

    def predicted() -> dict[str, Any]:
        caudal.predict(model, image, out=tmp_path / "map.tif", ram="4GiB", device="cpu")
        (file,) = notes.glob("*.jsonl")
        return dict(json.loads(file.read_text().splitlines()[-1]))

    first = predicted()
    assert 0.5 < first["measured"] / first["predicted"] < 1.25
    learned = load_model(model, "cpu").margin
    assert margin.learned(learned.kind)[1] == 1
    learned.note(10**6, 12 * 10**5)
    later = load_model(model, "cpu").margin
    assert later.share == pytest.approx(0.2 + 1.2 * learned.share, rel=1e-4)
    assert later.beyond(1000) == int(1000 * (1 + later.share))
    assert predicted()["predicted"] == pytest.approx(first["predicted"], rel=0.1)  # without its margin


def plan(device: str) -> Any:
    memory = MemoryPlan(ram=Bytes(300 * MIB), holders=(Holder(name="all", bytes=Bytes(204 * MIB)),))
    return SimpleNamespace(kind="unet", device=device, memory=memory, margin=0.02)


@pytest.mark.parametrize(
    ("device", "peak", "expected"),
    [("cpu", 230 * MIB, (0.15, 1)), ("cpu", 150 * MIB, None), ("cuda", 230 * MIB, None)],
)
def test_a_kill_teaches_at_least_its_peak_and_nothing_below_what_was_planned(
    device: str,
    peak: int,
    expected: tuple[float, int] | None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("caudal.runs.plan.stored_plan", lambda _path: plan(device))
    killed.learn(tmp_path, Bytes(peak))
    share, count = margin.learned("unet")
    assert (pytest.approx(share), count) == (expected or (margin.FIRST, 0))


def test_whoever_watches_has_a_kill_for_memory_noted_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, told = tmp_path / "run", list[tuple[Path, Bytes]]()
    run.mkdir()
    (run / "spec.toml").write_text("")
    log = JsonLines(run / "events.jsonl")
    log(MemoryRead(123 * MIB, None))
    log.close()
    ends = [("oom_host", 1), ("killed", 1)]

    def watch(*_words: object) -> Ending:
        reason, code = ends.pop(0)
        return Ending(reason, code, signal.SIGKILL, 1.0, Bytes(0), 1.0)  # type: ignore[arg-type]

    monkeypatch.setattr("caudal.runs.supervisor.watch", watch)
    monkeypatch.setattr(entry, "tell", lambda folder, peak: told.append((folder, peak)))
    assert entry._train(["train", "spec.toml", "-o", str(run)]) == 1
    assert told == [(run, 123 * MIB)]


def test_a_run_without_a_plan_teaches_nothing(tmp_path: Path, notes: Path) -> None:
    killed.tell(tmp_path, Bytes(5))
    assert not notes.exists()

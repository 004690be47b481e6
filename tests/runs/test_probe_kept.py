"""A measurement serves for an hour, as long as nothing that it was made of has changed."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from caudal.core.errors import DoesNotFit
from caudal.core.units import Bytes
from caudal.memory.cost import ProbeResult
from caudal.runs import probe_kept
from caudal.runs.probe import ProbeRequest
from caudal.runs.spec import RunSpec

MEASURED = ProbeResult(device="cpu", imported=Bytes(7), static={"weights": 3})


def request(folder: Path, ram: int = 2**30) -> ProbeRequest:
    spec = RunSpec.make({"task": "segmentation", "data": {"images": [str(folder)]}})
    return ProbeRequest(spec=spec, told={"bands": 3}, exact=(1, 2), inexact=(), ram=Bytes(ram), threads=2)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[ProbeRequest]:
    """What was really measured."""
    done: list[ProbeRequest] = []

    def measure(one: ProbeRequest) -> ProbeResult:
        done.append(one)
        if one.ram < 100:
            raise DoesNotFit("no", "more", pool="ram", needed=2, budget=1)
        return MEASURED.model_copy(update={"device": "cuda"} if one.threads == 9 else {})

    monkeypatch.setattr(probe_kept, "measure", measure)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.tif").write_bytes(b"1")
    return done


def test_the_same_request_is_measured_once(asked: list[ProbeRequest], tmp_path: Path) -> None:
    one = request(tmp_path / "set")
    assert probe_kept.ask(one) == probe_kept.ask(one) == MEASURED
    assert len(asked) == 1
    probe_kept.ask(request(tmp_path / "set", 2**31))
    assert len(asked) == 2


def test_what_takes_least_is_measured_once_for_all_budgets(asked: list[ProbeRequest], tmp_path: Path) -> None:
    one = request(tmp_path / "set").model_copy(update={"thrifty": True})
    assert probe_kept.ask(one) == probe_kept.ask(one.model_copy(update={"ram": Bytes(2**29)}))
    assert asked == [one]
    probe_kept.ask(request(tmp_path / "set"))
    assert len(asked) == 2


def test_what_has_changed_is_measured_again(asked: list[ProbeRequest], tmp_path: Path) -> None:
    one = request(tmp_path / "set")
    probe_kept.ask(one)
    os.utime(tmp_path / "set" / "a.tif", (1, time.time() + 5))  # written over in place
    probe_kept.ask(one)
    assert len(asked) == 2


def test_an_hour_later_it_is_measured_again_and_old_answers_go(
    asked: list[ProbeRequest], tmp_path: Path
) -> None:
    probe_kept.ask(request(tmp_path / "set"))
    (kept,) = (tmp_path / "cache" / "caudal" / "probes").iterdir()
    old = time.time() - probe_kept.KEPT_SECONDS
    os.utime(kept, (old, old))
    probe_kept.ask(request(tmp_path / "set", 2**31))
    assert not kept.exists()
    probe_kept.ask(request(tmp_path / "set"))
    assert len(asked) == 3


def test_what_was_measured_on_a_card_is_not_kept(asked: list[ProbeRequest], tmp_path: Path) -> None:
    one = request(tmp_path / "set").model_copy(update={"threads": 9})
    probe_kept.ask(one)
    probe_kept.ask(one)
    assert len(asked) == 2


def test_a_refusal_is_not_kept_and_a_broken_answer_is_none(asked: list[ProbeRequest], tmp_path: Path) -> None:
    for _n in range(2):
        with pytest.raises(DoesNotFit):
            probe_kept.ask(request(tmp_path / "set", 10))
    assert len(asked) == 2
    probe_kept.ask(request(tmp_path / "set"))
    (kept,) = (tmp_path / "cache" / "caudal" / "probes").iterdir()
    kept.write_text("{")
    assert probe_kept.ask(request(tmp_path / "set")) == MEASURED
    assert len(asked) == 4


def test_where_nothing_can_be_kept_it_is_measured(
    asked: list[ProbeRequest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert probe_kept.ask(request(tmp_path / "set")) == MEASURED

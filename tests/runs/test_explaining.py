"""An explanation keeps its budget: by fewer copies at once, by a smaller part of a scene, or by saying no."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from caudal.core.errors import DoesNotFit
from caudal.core.units import MIB, Bytes
from caudal.memory.meters import charged_bytes
from caudal.runs import explaining
from caudal.runs.explaining import at_once
from caudal.runs.loaded import Loaded
from tests.cgroups import Ended, run_in_group
from tests.runs.stored_scenes import pairs, untrained

SCENE = (3, 512, 512)
A_COPY = 240 * MIB  # of a whole scene


def explained(run: Path, images: Path, mib: int) -> tuple[Ended, dict[str, Any]]:
    """What the command line says in a real group of its budget."""
    words = ["explain", run, images, "-o", run / "why.html", "--ram", f"{mib}MiB", "--json"]
    more = ["--method", "hirescam", "--most", "1"]
    ended = run_in_group([sys.executable, "-m", "caudal", *map(str, words), *more], mib * MIB)
    return ended, json.loads(ended.output.strip().splitlines()[-1])


def test_in_a_real_group_it_takes_what_fits_and_no_more_than_it_said(tmp_path: Path) -> None:
    pytest.importorskip("captum")
    run, images = untrained(tmp_path / "run", width=16, depth=4), pairs(tmp_path, (400, 520)) / "images"
    ended, said = explained(run, images, 320)
    assert (ended.returncode, ended.oom_kills) == (0, 0), ended.output
    assert ended.peak_charged <= said["predicted_bytes"]["ram"] <= 320 * MIB
    assert said["peak_bytes"]["ram"] <= said["predicted_bytes"]["ram"]
    assert any("Only the middle 128 px" in text for text in said["warnings"])


@pytest.mark.slow  # refusals in real groups are held of other verbs
def test_in_a_real_group_that_is_too_small_it_names_what_it_needs(tmp_path: Path) -> None:
    pytest.importorskip("captum")
    run, images = untrained(tmp_path / "run", width=16, depth=4), pairs(tmp_path, (400, 520)) / "images"
    ended, said = explained(run, images, 250)
    assert (ended.returncode, ended.oom_kills) == (3, 0), ended.output
    assert 250 * MIB < said["error"]["facts"]["needed"] < 320 * MIB
    assert not (run / "why.html").exists()


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Copies and sides that were measured; what they take grows with both."""
    found: list[tuple[int, int]] = []

    def taken(_model: object, copies: int, shape: tuple[int, int, int], _held: int) -> int:
        found.append((copies, shape[1]))
        return A_COPY * copies * shape[1] * shape[2] // (512 * 512)

    monkeypatch.setattr(explaining, "_taken", taken)
    monkeypatch.setattr(explaining, "captum", lambda: None)
    return found


def eyes(device: str = "cpu") -> Any:
    """Of a model without weights."""
    source = object.__new__(Loaded)
    return SimpleNamespace(model=nn.Identity(), device=device, source=source)


def within(room: int) -> Bytes:
    """A budget that leaves so much beside what is held."""
    return Bytes(charged_bytes() + explaining._BESIDE + room + 2 * MIB)


def test_what_would_pass_the_budget_is_not_even_measured(measured: list[tuple[int, int]]) -> None:
    found = at_once(eyes(), SCENE, within(A_COPY // 2))
    assert (found.side_px, found.gives_back) == (256, True)
    assert (1, 512) not in measured
    assert found.copies == 2


@pytest.mark.parametrize("copies", [1, 3, 8])
def test_as_many_copies_are_taken_as_fit(copies: int, measured: list[tuple[int, int]]) -> None:
    found = at_once(eyes(), SCENE, within(int(1.5 * copies * A_COPY) + explaining._KEPT_BESIDE))
    assert (found.copies, found.side_px, found.gives_back, found.warnings) == (copies, 512, False, ())


def test_where_the_heap_may_not_keep_what_is_freed_it_gives_it_back(measured: list[tuple[int, int]]) -> None:
    found = at_once(eyes(), SCENE, within(A_COPY))
    assert (found.copies, found.side_px, found.gives_back) == (1, 512, True)


def test_what_fits_in_no_way_is_refused_with_the_least(measured: list[tuple[int, int]]) -> None:
    with pytest.raises(DoesNotFit, match="at least"):
        at_once(eyes(), SCENE, within(-40 * MIB))
    assert measured == [(1, 128)]

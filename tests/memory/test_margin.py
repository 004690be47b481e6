"""Past errors widen the next plan as far as they must, and only for runs of their kind."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caudal.memory import margin


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_at_first_a_little_is_set_aside() -> None:
    share, count = margin.learned("unet cpu bf16")
    assert share == pytest.approx(margin.FIRST)
    assert count == 0


def test_the_worst_of_a_few_runs_counts_and_predictions_that_were_too_high_do_not_shrink_a_plan() -> None:
    for measured in (90, 104, 99):
        margin.note("unet cpu bf16", 100, measured)
    share, count = margin.learned("unet cpu bf16")
    assert count == 3
    assert share == pytest.approx(0.04)
    margin.note("unet cpu fp32", 100, 80)
    assert margin.learned("unet cpu fp32") == (pytest.approx(margin.FIRST), 1)


def test_of_many_runs_one_in_twenty_may_be_worse() -> None:
    for k in range(99):
        margin.note("many", 1000, 1000 + k)
    assert margin.learned("many")[0] == pytest.approx(0.094, abs=0.002)


def test_old_runs_are_forgotten_and_broken_lines_passed_over(tmp_path: Path) -> None:
    margin.note("kind", 100, 120)
    for _run in range(150):
        margin.note("kind", 100, 100)
    assert margin.learned("kind") == (0.0, 100)
    (found,) = (tmp_path / "caudal" / "predictions").glob("*.jsonl")
    found.write_text(found.read_text()[:-7] + "\n[]\n{}\n")
    assert margin.learned("kind")[1] == 99


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0.5, 1.2), min_size=1, max_size=60))
def test_with_its_margin_a_plan_would_have_held_for_19_of_20_past_runs(ratios: list[float]) -> None:
    kind = f"kind {hash(tuple(ratios))}"
    for ratio in ratios:
        margin.note(kind, 10**6, round(ratio * 10**6))
    share, _count = margin.learned(kind)
    held = sum(ratio <= 1 + share + 1e-6 for ratio in ratios[-100:])
    assert held >= 0.95 * len(ratios) - 1e-9


def test_a_folder_that_cannot_be_written_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    margin.note("kind", 100, 100)
    assert margin.learned("kind") == (pytest.approx(margin.FIRST), 0)

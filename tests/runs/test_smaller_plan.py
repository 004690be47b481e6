"""A run that was ended for want of memory goes on with a plan that takes less, if there is one."""

from __future__ import annotations

from pathlib import Path

import pytest

from caudal.core.errors import DoesNotFit
from caudal.core.units import MIB, Bytes
from caudal.runs.probe import ProbeRequest
from caudal.runs.spec import RunSpec
from caudal.runs.verbs import plan as planning
from caudal.runs.watched import SMALLER_PLAN

HELD = Bytes(200 * MIB)
SPEC = RunSpec.make({"task": "segmentation", "data": {"images": ["set"]}})


def aimed_at(monkeypatch: pytest.MonkeyPatch, *least_mib: float) -> list[tuple[Bytes, bool]]:
    """The budgets that plans are sought in, which turn out to need so much, one after the other; and whether
    each plan may change what the spec says.
    """  # fmt: skip
    seen, needs = list[tuple[Bytes, bool]](), list(least_mib)

    def plan_spec(_spec: RunSpec, _tick: object, most: Bytes, may_change: bool) -> str:
        seen.append((most, may_change))
        need = needs.pop(0) * MIB
        if need > most:
            raise DoesNotFit("no", "none", pool="ram", needed=int(need), budget=int(most))
        return "a plan"

    monkeypatch.setattr(planning, "plan_spec", plan_spec)
    return seen


def test_less_by_a_good_step_is_aimed_at_and_then_half_of_what_can_be_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = aimed_at(monkeypatch, 180, 181)
    assert str(planning._plan_below(HELD, SPEC, lambda *_: None)) == "a plan"
    first, second = (held / MIB for held, _may_change in seen)
    assert first < 180 < second < 192
    assert [may_change for _held, may_change in seen] == [False, False]


def test_what_changes_numbers_is_turned_only_where_nothing_else_takes_less(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = aimed_at(monkeypatch, 200, 150)
    assert str(planning._plan_below(HELD, SPEC, lambda *_: None)) == "a plan"
    assert [may_change for _held, may_change in seen] == [False, True]


def test_where_none_takes_less_it_says_so_and_names_no_budget_that_nobody_gave(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    aimed_at(monkeypatch, 199, 199)
    with pytest.raises(DoesNotFit, match="ended, of 200 MiB: the least takes 199 MiB") as raised:
        planning._plan_below(HELD, SPEC, lambda *_: None)
    assert raised.value.facts["needed"] == 199 * MIB


@pytest.mark.parametrize("killed", [False, True])
def test_after_a_kill_what_takes_least_is_measured_too(
    tiny_set: Path, monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    class Asked(Exception):
        pass

    def ask(request: ProbeRequest) -> None:
        assert request.thrifty is killed
        raise Asked

    monkeypatch.setattr(planning, "ask", ask)
    if killed:
        monkeypatch.setenv(SMALLER_PLAN, "1")
    with pytest.raises(Asked):
        planning.plan("segmentation", tiny_set, ram="1GiB")

"""What want of memory may change: never what was asked for, always said, and only when nothing else fits."""

from __future__ import annotations

from pathlib import Path

import pytest

import caudal
from caudal.core.errors import DoesNotFit
from caudal.core.units import Bytes
from caudal.memory.cost import ProbeResult, Step
from caudal.runs.probe import ProbeRequest, ask
from caudal.runs.spec import RunSpec
from caudal.runs.verbs.plan import open_work, plan_spec, smaller_specs

pytestmark = pytest.mark.usefixtures("warm")


def spec_of(folder: Path, **more: object) -> RunSpec:
    values: dict[str, object] = {
        "task": "segmentation",
        "data": {"images": [str(folder)]},
        "model": {"config": {"width": 24, "depth": 3, "stem": 1}},
        "training": {"steps": 2, "batch": 4, "validate_every": 2},
    }
    return RunSpec.make(values | more)


def test_what_was_asked_for_is_never_changed(tiny_set: Path) -> None:
    spec = spec_of(tiny_set, data={"images": [str(tiny_set)], "patch_px": 64})
    assert not list(smaller_specs(spec, open_work(spec), "bf16"))
    asked = spec_of(tiny_set, training={"steps": 2, "batch": 4, "precision": "fp32"})
    assert all(
        made.training.precision == "fp32" for made, _said in smaller_specs(asked, open_work(asked), "fp32")
    )


def test_what_is_changed_is_named_and_the_nearest_comes_first(tiny_set: Path) -> None:
    spec = spec_of(tiny_set)
    made = list(smaller_specs(spec, open_work(spec), "fp32"))
    assert [one.training.precision for one, _said in made] == ["bf16"] * len(made)
    assert [one.data.patch_px for one, _said in made] == [0, 32]
    assert [[lever.name for lever in said] for _one, said in made] == [["precision"], ["precision", "patch"]]


@pytest.mark.parametrize("furthest_fits", [False, True])
def test_the_furthest_is_measured_first_and_the_nearest_that_fits_is_taken(
    furthest_fits: bool, tiny_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, int]] = []

    def too_large_as_it_is(request: ProbeRequest) -> ProbeResult:
        asked.append((request.spec.training.precision, request.told["patch_px"]))
        if asked[-1] == ("auto", 64) or not furthest_fits:
            raise DoesNotFit("no", "more", pool="ram", needed=2**40, budget=1, precision="fp32")
        step = Step(micro_batch=4, ram=Bytes(1), seconds_per_sample=1.0)
        static = {"weights": 1, "optimizer": 2}
        return ProbeResult(
            device="cpu", imported=Bytes(1), static=static, steps=(step,), decodings=((1, Bytes(1)),)
        )

    monkeypatch.setattr("caudal.runs.verbs.plan.ask", too_large_as_it_is)
    spec = spec_of(tiny_set, ram="1GiB")
    if furthest_fits:
        made = plan_spec(spec)
        assert asked == [("auto", 64), ("bf16", 32), ("bf16", 64)]
        assert (made.spec.training.precision, made.spec.data.patch_px) == ("bf16", 0)
        assert [lever.name for lever in made.memory.levers if lever.value == "bf16"] == ["precision"]
    else:
        with pytest.raises(DoesNotFit):
            plan_spec(spec)
        assert asked == [("auto", 64), ("bf16", 32)]


def test_a_patch_is_halved_where_nothing_else_fits_and_the_run_keeps_it_and_says_it(
    tiny_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_px: list[int] = []

    def too_large_for_64(request: ProbeRequest) -> ProbeResult:
        asked_px.append(request.told["patch_px"])
        if asked_px[-1] == 64:
            raise DoesNotFit("no", "more", pool="ram", needed=2**40, budget=1)
        return ask(request)

    monkeypatch.setattr("caudal.runs.verbs.plan.ask", too_large_for_64)
    spec = spec_of(tiny_set, model={"config": {"width": 8, "depth": 2}}, ram="1GiB")
    made = plan_spec(spec)
    assert asked_px == [64, 32]
    assert (made.asked, made.spec.data.patch_px) == (spec, 32)
    assert any("32 px" in text for text in made.warnings)
    result = caudal.train(made, out=tmp_path / "run")
    assert result.levers is not None
    assert result.levers["patch"] == "32"
    assert any("32 px" in text for text in result.warnings)
    again = plan_spec(RunSpec.from_toml(tmp_path / "run" / "spec.toml"))
    assert again.asked.data.patch_px == 0  # the folder has the spec as it was given


def test_a_plan_that_aims_at_less_keeps_its_budget(tiny_set: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a kill it takes less; a little more than was aimed at is then no reason to stop."""
    spec = spec_of(tiny_set, ram="1GiB")
    probes: list[ProbeResult] = []

    def asked_once(request: ProbeRequest) -> ProbeResult:
        probes[:] = probes or [ask(request)]
        return probes[0]

    monkeypatch.setattr("caudal.runs.verbs.plan.ask", asked_once)
    held = plan_spec(spec).memory.predicted("ram")
    below = plan_spec(spec, most=Bytes(held - 1)).memory
    assert below.predicted("ram") < held
    assert below.ram == 2**30

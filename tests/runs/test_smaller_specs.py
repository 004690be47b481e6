"""What want of memory may change: never what was asked for, always said, and only when nothing else fits."""

from __future__ import annotations

from pathlib import Path

import pytest

import caudal
from caudal.core.errors import DoesNotFit
from caudal.core.units import Bytes
from caudal.runs.spec import RunSpec
from caudal.runs.verbs.plan import open_work, plan_spec, smaller_specs


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


@pytest.mark.timeout(200)
def test_a_patch_is_halved_only_where_nothing_else_fits_and_it_is_a_warning(
    tiny_set: Path, tmp_path: Path
) -> None:
    spec = spec_of(tiny_set, model={"config": {"width": 40, "depth": 2, "stem": 1}})
    with pytest.raises(DoesNotFit) as caught:
        plan_spec(
            RunSpec.make(spec.model_dump() | {"data": {**spec.data.model_dump(), "patch_px": 64}}),
            most=Bytes(230 * 2**20),
        )
    least = int(str(caught.value.facts["needed"]))
    made = plan_spec(spec, most=Bytes(least * 0.97))
    assert made.asked == spec
    assert made.spec.data.patch_px == 32
    assert any("32 px" in text for text in made.warnings)
    assert made.memory.predicted("ram") <= least * 0.97
    result = caudal.train(made, out=tmp_path / "run")
    assert result.levers is not None
    assert result.levers["patch"] == "32"

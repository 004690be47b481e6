"""Which anomaly model is taken where none is named, and that it is said."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio

import caudal
from caudal.core.errors import DataError, UsageError
from caudal.runs.spec import RunSpec
from caudal.runs.work.normal_choice import chosen_model


def anomaly(root: Path | str = "-", **model: object) -> RunSpec:
    sections = {"model": model} if model else {}
    return RunSpec.make(
        {"task": "anomaly", "data": {"images": [str(root)]}, "device": "cpu", "ram": "1GiB", **sections}
    )


@pytest.mark.parametrize(
    ("bands", "pixels", "name"),
    [
        (1, 10, "patch_memory"),
        (4, 10**9, "patch_memory"),
        (5, 2**18, "autoencoder"),
        (5, 2**18 - 1, "rx"),
        (200, 10**9, "autoencoder"),
    ],
)
def test_the_choice_follows_bands_and_pixels_and_says_why(bands: int, pixels: int, name: str) -> None:
    chosen, why = chosen_model(anomaly(), bands, pixels)
    assert chosen.model.name == name
    assert len(why) == 1
    assert name in why[0]
    assert f"{bands} bands" in why[0]


def test_a_model_that_is_named_stays() -> None:
    spec = anomaly(name="rx", config={"smooth_px": 0.0})
    assert chosen_model(spec, 3, 10**9) == (spec, ())


def test_keys_of_a_model_that_is_not_known_yet_are_refused() -> None:
    with pytest.raises(UsageError, match="no keys of its own"):
        chosen_model(anomaly(config={"bank_bytes": 2**18}), 3, 10**9)


def test_the_plan_the_model_and_the_report_say_what_was_taken(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    for k in range(8):
        path = tmp_path / "normal" / f"{k}.tif"
        path.parent.mkdir(exist_ok=True)
        with rasterio.open(path, "w", driver="GTiff", width=48, height=48, count=6, dtype="uint16") as file:
            file.write(draw.integers(100, 200, (6, 48, 48)).astype(np.uint16))
    spec = anomaly(tmp_path / "normal")
    plan = caudal.plan(spec)
    assert any("The model is rx" in text for text in plan.warnings)
    run = tmp_path / "run"
    caudal.train(plan, out=run)
    card = json.loads((run / "model" / "model.json").read_text())
    assert card["architecture"] == "rx"
    page = (run / "report.html").read_text()
    assert "rx (chosen by the data at hand)" in page
    assert "The model is rx" in page
    scored_without_masks(run, tmp_path / "normal", tmp_path / "judged")


def scored_without_masks(run: Path, normal: Path, root: Path) -> None:
    """Defects without masks are scored by image; of a kind that has some masks, each must have one."""
    for folder in ("test/good", "test/odd"):
        (root / folder).mkdir(parents=True)
    for k, path in enumerate(sorted(normal.iterdir())):
        with rasterio.open(path) as file:
            x_CHW, profile = file.read(), file.profile
        if k >= 4:
            x_CHW[:, 10:20, 10:20] = 900
        with rasterio.open(
            root / ("test/odd" if k >= 4 else "test/good") / path.name, "w", **profile
        ) as file:
            file.write(x_CHW)
    found = caudal.evaluate(run, root, ram="1GiB")
    assert found.metrics is not None
    assert found.metrics["image_auroc"] == 1.0
    assert found.metrics["pixel_auroc"] is None
    (root / "ground_truth" / "odd").mkdir(parents=True)
    with rasterio.open(
        root / "ground_truth" / "odd" / "4.tif",
        "w",
        driver="GTiff",
        width=48,
        height=48,
        count=1,
        dtype="uint8",
    ) as file:
        file.write(np.ones((1, 48, 48), np.uint8))
    with pytest.raises(DataError, match="has no mask, and others of its kind have one"):
        caudal.evaluate(run, root, ram="1GiB")

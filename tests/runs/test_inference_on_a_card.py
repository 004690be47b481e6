"""Prediction and scoring keep a VRAM budget by smaller tiles and fewer samples: on a model of a card."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image

import caudal
from caudal.core.errors import DoesNotFit, OutOfMemory, UsageError
from caudal.core.events import Event, RunStarted, TileDone
from caudal.core.units import MIB
from caudal.runs.spec import RunSpec
from tests.card.card import Card, probing_here
from tests.data.sets import write_tiff
from tests.runs.stored_scenes import pairs, untrained

GIB = 1024 * MIB
RAM = "3GiB"


@pytest.fixture
def card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Card]:
    """A card of 1 GiB that computes in this process."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    threads, made = torch.get_num_threads(), Card(GIB)
    with made.installed(), probing_here(made):
        made.afresh()
        yield made
        made.afresh()
    torch.set_num_threads(threads)


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    return write_tiff(tmp_path / "scene.tif", draw.integers(0, 250, (600, 640, 3)).astype(np.uint8))


def test_without_a_budget_a_prediction_has_a_share_of_what_is_free_and_says_what_it_takes(
    card: Card, scene: Path, tmp_path: Path
) -> None:
    card.blocks.others = 512 * MIB
    heard: list[Event] = []
    run = untrained(tmp_path / "run")
    result = caudal.predict(run, scene, out=tmp_path / "map.tif", ram=RAM, listeners=[heard.append])
    assert (result.budget_bytes, result.predicted_bytes, result.peak_bytes) is not None
    budget, predicted, peak = (
        (found or {})["vram"] for found in (result.budget_bytes, result.predicted_bytes, result.peak_bytes)
    )
    assert budget == int(0.9 * 256 * MIB)  # the context of this process takes as much as is left
    assert card.blocks.limit * card.blocks.total == pytest.approx(budget)
    assert 0 < peak <= predicted <= budget
    assert predicted <= 1.1 * peak
    (started,) = [event for event in heard if isinstance(event, RunStarted)]
    assert (started.budget_bytes["vram"], started.predicted_bytes["vram"]) == (budget, predicted)


def test_a_smaller_budget_of_the_card_takes_smaller_tiles(card: Card, scene: Path, tmp_path: Path) -> None:
    run = untrained(tmp_path / "run")
    roomy = caudal.predict(run, scene, out=tmp_path / "roomy.tif", ram=RAM, exact=True)
    wanted = (roomy.peak_bytes or {})["vram"]
    card.afresh()
    tight = caudal.predict(run, scene, out=tmp_path / "tight.tif", ram=RAM, vram=wanted // 2, exact=True)
    assert int((tight.levers or {})["tile"]) < int((roomy.levers or {})["tile"])
    assert card.blocks.most_reserved <= wanted // 2
    with rasterio.open(tmp_path / "roomy.tif") as one, rasterio.open(tmp_path / "tight.tif") as other:
        assert np.mean(one.read() == other.read()) > 0.999
    card.afresh()
    with pytest.raises(DoesNotFit) as caught:
        caudal.predict(run, scene, out=tmp_path / "none.tif", ram=RAM, vram=2 * MIB)
    assert caught.value.facts["pool"] == "vram"
    assert not (tmp_path / "none.tif").exists()
    with pytest.raises(UsageError, match="--vram asks for"):
        caudal.predict(run, scene, out=tmp_path / "none.tif", ram=RAM, vram="2GiB")


def test_a_card_that_others_fill_meanwhile_ends_a_prediction_with_a_sentence(
    card: Card, scene: Path, tmp_path: Path
) -> None:
    def neighbour(event: Event) -> None:
        if isinstance(event, TileDone):
            card.blocks.empty()
            card.blocks.others = card.blocks.total

    with pytest.raises(OutOfMemory, match="Memory ran out at"):
        caudal.predict(
            untrained(tmp_path / "run"), scene, out=tmp_path / "map.tif", ram=RAM, listeners=[neighbour]
        )
    assert not (tmp_path / "map.tif").exists()


def test_whole_images_are_scored_inside_a_budget_of_the_card(card: Card, tmp_path: Path) -> None:
    run, data = untrained(tmp_path / "run"), pairs(tmp_path / "set", (300, 280), (90, 600))
    roomy = caudal.evaluate(run, data, ram=RAM)
    wanted = (roomy.peak_bytes or {})["vram"]
    card.afresh()
    tight = caudal.evaluate(run, data, ram=RAM, vram=wanted // 2)
    assert (tight.predicted_bytes or {})["vram"] <= wanted // 2 == (tight.budget_bytes or {})["vram"]
    assert card.blocks.most_reserved <= wanted // 2
    assert tight.metrics["accuracy"] == pytest.approx(roomy.metrics["accuracy"], abs=0.02)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    for k in range(64):
        path = tmp_path / "pictures" / ("blue", "red")[k % 2] / f"{k:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(90, 130, (64, 64, 3)).astype(np.uint8)).save(path)
    return tmp_path / "pictures"


def test_samples_go_through_the_model_in_fewer_at_once_under_a_smaller_budget_of_the_card(
    card: Card, pictures: Path, tmp_path: Path
) -> None:
    spec = RunSpec.make(
        {
            "task": "classification",
            "device": "cuda",
            "data": {"images": [str(pictures)], "image_px": 64},
            "model": {"name": "residual", "config": {"width": 16, "depth": 2, "stem": 1}},
            "training": {"steps": 2, "batch": 8, "validate_every": 2, "precision": "fp32"},
        }
    )
    plan = caudal.plan(spec, ram=RAM)
    trained = caudal.train(plan, out=tmp_path / "run")
    peak = card.blocks.most_reserved
    assert (trained.peak_bytes or {})["vram"] == peak <= plan.memory.predicted("vram")
    assert not [text for text in trained.warnings or () if "explained" in text]
    card.afresh()
    roomy = caudal.evaluate(tmp_path / "run", pictures, ram=RAM)
    wanted = (roomy.peak_bytes or {})["vram"]
    card.afresh()
    tight = caudal.evaluate(tmp_path / "run", pictures, ram=RAM, vram=wanted // 2)
    assert card.blocks.most_reserved <= wanted // 2
    assert (tight.predicted_bytes or {})["vram"] <= wanted // 2
    assert tight.metrics["auroc"] == pytest.approx(roomy.metrics["auroc"], abs=1e-6)

"""What verbs do with a stored model of scenes: explain it, and leave nothing where they refuse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import caudal
from caudal.core.errors import BadPair, DataError, UsageError
from caudal.models import weights
from tests.runs.stored_scenes import untrained


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A segmentation model of three bands and two classes, untrained."""
    return untrained(tmp_path_factory.mktemp("run"))


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    for name in ("one", "two"):
        x_HWC = draw.integers(80, 120, (48, 64, 3)).astype(np.uint8)
        x_HWC[10:20, 10:30, 0] = 250
        mask = np.zeros((48, 64), np.uint8)
        mask[10:20, 10:30] = 255
        for folder, picture in (("images", x_HWC), ("masks", mask)):
            path = tmp_path / folder / f"{name}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(picture).save(path)
    return tmp_path


def test_a_segmentation_is_explained_beside_its_masks(model: Path, scenes: Path, tmp_path: Path) -> None:
    pytest.importorskip("captum")
    page = tmp_path / "why.html"
    found = caudal.explain(
        model,
        scenes / "images",
        out=page,
        masks=scenes / "masks",
        methods=["hirescam", "occlusion"],
        target="255",
        ram="1GiB",
    )
    assert found.metrics is not None
    assert found.metrics["pictures"] == 2
    text = page.read_text()
    assert text.count("data:image/png;base64") >= 2 * 3  # of each the picture, and two maps over it
    assert text.count("Explained: class 255") == 2
    assert "HiResCAM" in text
    assert "Occlusion" in text
    assert "Energy in the mask" in text
    assert "The dashed line is the mask" in text
    assert "its training curves are not shown" in text


def test_a_picture_without_its_class_or_mask_does_not_cost_the_page(
    model: Path, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("captum")
    Image.fromarray(np.zeros((48, 64), np.uint8)).save(scenes / "masks" / "one.png")
    (scenes / "masks" / "two.png").unlink()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(scenes / "masks" / "other.png")
    found = caudal.explain(
        model, scenes / "images", out=tmp_path / "a.html", masks=scenes / "masks", methods=["hirescam"]
    )
    assert found.metrics is not None
    assert found.metrics["pictures"] == 2
    assert any("1 pictures have no mask" in text and "first: two" in text for text in found.warnings)
    assert any("mark nothing of what is seen there (first: one)" in text for text in found.warnings)

    from caudal.inference.explain import target

    chosen, calls = target.choose_target, []

    def nowhere_in_the_first(*args: object) -> object:
        calls.append(args)
        if len(calls) == 1:
            raise UsageError("Nowhere.", "Choose another.", nowhere=True)
        return chosen(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(target, "choose_target", nowhere_in_the_first)
    page = tmp_path / "b.html"
    found = caudal.explain(model, scenes / "images", out=page, target="255", methods=["hirescam"])
    assert found.metrics is not None
    assert found.metrics["pictures"] == 1
    assert any("1 pictures are left out: the model gives class 255 to no pixel" in t for t in found.warnings)
    calls.clear()
    with pytest.raises(UsageError, match="Nowhere"):
        caudal.explain(model, scenes / "images" / "one.png", out=page, target="255", methods=["hirescam"])


def test_a_mask_of_another_size_is_named_by_explain(model: Path, scenes: Path, tmp_path: Path) -> None:
    pytest.importorskip("captum")
    Image.fromarray(np.full((40, 64), 255, np.uint8)).save(scenes / "masks" / "one.png")
    with pytest.raises(BadPair, match=r"one\.png is 40×64"):
        caudal.explain(model, scenes / "images", out=tmp_path / "a.html", masks=scenes / "masks")
    assert not (tmp_path / "a.html").exists()


def test_a_model_of_anomalies_has_no_class_to_explain(scenes: Path, tmp_path: Path) -> None:
    card = weights.ModelCard(task="anomaly", architecture="rx", config={}, bands=3, outputs=1)
    weights.save(tmp_path / "run" / "model", weights.build("rx", 3, 1, {}), card)
    with pytest.raises(UsageError, match="knows no classes"):
        caudal.explain(tmp_path / "run", scenes / "images", out=tmp_path / "a.html")


def test_a_figure_of_a_segmentation_is_one_picture(model: Path, scenes: Path, tmp_path: Path) -> None:
    pytest.importorskip("captum")
    out = tmp_path / "why.png"
    caudal.explain(model, scenes / "images" / "one.png", out=out, methods=["hirescam"], ram="1GiB")
    assert Image.open(out).width > 300


def test_a_folder_of_other_bands_is_refused_and_leaves_no_folder(model: Path, tmp_path: Path) -> None:
    grey = tmp_path / "grey"
    grey.mkdir()
    for name in "ab":
        Image.fromarray(np.zeros((32, 32), np.uint8)).save(grey / f"{name}.png")
    with pytest.raises(DataError, match="1 bands and the model was trained on 3"):
        caudal.predict(model, grey, out=tmp_path / "maps", ram="1GiB")
    assert not (tmp_path / "maps").exists()

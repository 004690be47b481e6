"""What an anomaly run learns from and is judged by, and what it says of data that are not as they seem."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image

import caudal
from caudal.core.errors import BadPair, DataError, UnreadableFile, UsageError
from caudal.runs.folder import RunFolder
from caudal.runs.plan import TrainPlan
from caudal.runs.report import odd_examples
from caudal.runs.report.example import Example
from caudal.runs.report.odd_examples import draw_odd_examples
from caudal.runs.spec import RunSpec
from caudal.runs.work.normal_scenes import NormalScenes

SIDE = 32


def picture(path: Path, seed: int, odd: bool = False, side: int = SIDE) -> Path:
    """Noise of three colours; an odd one has a bright square."""
    x_HWC = np.random.default_rng(seed).integers(90, 110, (side, side, 3)).astype(np.uint8)
    if odd:
        x_HWC[8:16, 8:16] = 250
    return save(path, x_HWC)


def mask(path: Path, side: int = SIDE, empty: bool = False) -> Path:
    y_HW = np.zeros((side, side), np.uint8)
    y_HW[8:16, 8:16] = 0 if empty else 255
    return save(path, y_HW)


def save(path: Path, x: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(x).save(path)
    return path


def mvtec(root: Path) -> Path:
    for k in range(6):
        picture(root / f"train/good/{k}.png", k)
    for k in range(3):
        picture(root / f"test/good/{k}.png", 10 + k)
        picture(root / f"test/spot/{k}.png", 20 + k, odd=True)
        mask(root / f"ground_truth/spot/{k}_mask.png")
    return root


def good_and_spot(root: Path) -> Path:
    for k in range(10):
        picture(root / f"good/{k}.png", k)
    for k in range(3):
        picture(root / f"spot/{k}.png", 20 + k, odd=True)
    return root


def spec(root: Path, **more: object) -> RunSpec:
    data = {"images": [str(root)], **more.pop("data", {})}  # type: ignore[dict-item]
    model = {"name": "rx", "config": {"smooth_px": 0.0}}
    return RunSpec.make(
        {"task": "anomaly", "data": data, "device": "cpu", "ram": "1GiB", "model": model, **more}
    )


def opened(root: Path, **more: object) -> NormalScenes:
    return NormalScenes.open(spec(root, **more))


def said(warnings: object, text: str) -> bool:
    return any(text in one for one in warnings)  # type: ignore[attr-defined]


@pytest.mark.parametrize("side", [SIDE - 8, SIDE + 8])
def test_a_mask_of_another_size_is_named_before_anything_is_learned(tmp_path: Path, side: int) -> None:
    wrong = mask(mvtec(tmp_path) / "ground_truth/spot/1_mask.png", side)
    with pytest.raises(BadPair, match=f"{side}×{side} pixels and its image") as caught:
        opened(tmp_path)
    assert str(wrong) in caught.value.message


def test_a_judged_image_with_other_bands_is_named_before_anything_is_learned(tmp_path: Path) -> None:
    save(mvtec(tmp_path) / "test/good/grey.png", np.zeros((SIDE, SIDE), np.uint8))
    with pytest.raises(DataError, match=r"grey\.png has 1 bands"):
        opened(tmp_path)


def test_good_and_defect_folders_are_judged_by_what_is_held_out(tmp_path: Path) -> None:
    work = opened(good_and_spot(tmp_path))
    held_out = {work.data.index.image(i) for i in work.data.parts.held_out}
    assert {one.path for one in work.data.judged if one.anomalous is False} == held_out
    assert sum(bool(one.anomalous) for one in work.data.judged) == 3


def test_a_table_says_what_is_learned_and_what_is_judged(tmp_path: Path) -> None:
    good_and_spot(tmp_path)
    mask(tmp_path / "where/0.png")
    rows = [f"good/{k}.png,good," for k in range(10)] + ["spot/0.png,spot,where/0.png", "spot/1.png,spot,"]
    table = tmp_path / "parts.csv"
    table.write_text("file,label,mask\n" + "\n".join(rows) + "\n", encoding="utf-8")
    work = opened(table)
    assert len(work.data.index) == 10
    judged = {one.path.relative_to(tmp_path).as_posix(): one for one in work.data.judged}
    assert judged["spot/0.png"].mask == tmp_path / "where/0.png"
    assert judged["spot/1.png"].mask is None
    assert "spot/2.png" not in judged
    assert sum(one.anomalous is False for one in judged.values()) == len(work.data.parts.held_out)


@pytest.mark.parametrize(
    ("text", "error", "why"),
    [
        ("file,kind\na.png,good\n", DataError, "no columns"),
        ("file,label\n", DataError, "or no row"),
        ("file,label\nb.png,good\n", BadPair, r"b\.png, which is not there"),
        ("file,label\n../a.png,good\n", DataError, "does not lie below"),
        ("file,label\n/etc/hostname,good\n", DataError, "does not lie below"),
        ("file,label\na.png,good\na.png,spot\n", DataError, "twice"),
        ("file,label\na.png,normal\n", DataError, "names no good image"),
    ],
)
def test_a_table_that_does_not_say_it_is_refused(
    tmp_path: Path, text: str, error: type[Exception], why: str
) -> None:
    picture(tmp_path / "set/a.png", 0)
    table = tmp_path / "set" / "parts.csv"
    table.write_text(text, encoding="utf-8")
    with pytest.raises(error, match=why):
        opened(table)


@pytest.mark.parametrize("key", ["labels", "masks", "target", "classes"])
def test_keys_that_would_be_passed_over_are_refused(tmp_path: Path, key: str) -> None:
    picture(tmp_path / "a.png", 0)
    value: object = {"masks": ["nowhere"], "classes": [0, 1]}.get(key, "nowhere")
    with pytest.raises(UsageError, match=f"data.{key} says nothing"):
        opened(tmp_path, data={key: value})


def test_images_to_test_with_are_never_learned_from(tmp_path: Path) -> None:
    for k in range(3):
        picture(tmp_path / f"plain/{k}.png", k)
    picture(tmp_path / "test/spot/a.png", 9, odd=True)
    mask(tmp_path / "ground_truth/spot/a.png")
    work = opened(tmp_path)
    assert [work.data.index.image(i).parent.name for i in range(len(work.data.index))] == ["plain"] * 3
    for path in (tmp_path / "plain").iterdir():
        path.unlink()
    with pytest.raises(UnreadableFile, match="no good images to learn from"):
        opened(tmp_path)


def test_a_copy_of_a_learned_image_among_those_to_score_is_named(tmp_path: Path) -> None:
    mvtec(tmp_path)
    work = opened(tmp_path)
    learned = Path(str(work.data.index.image(work.data.parts.train[0])))
    copy = tmp_path / "test/good/again.png"
    copy.write_bytes(learned.read_bytes())
    (note,) = [text for text in opened(tmp_path).warnings if "copies of ones to learn from" in text]
    assert str(copy) in note
    assert str(learned) in note


def test_what_is_passed_over_is_said(tmp_path: Path) -> None:
    mvtec(tmp_path)
    (tmp_path / "train/good/x.gif").write_bytes(b"GIF89a")
    picture(tmp_path / "test/nowhere.png", 3)
    mask(tmp_path / "ground_truth/spot/99.png")
    mask(tmp_path / "ground_truth/hole/1.png")
    warnings = opened(tmp_path).warnings
    assert said(warnings, "1 files are no images that can be read and are left out")
    assert said(warnings, "x.gif")
    assert said(warnings, "2 masks belong to no image")
    assert said(warnings, "nobody said whether they are good (first: nowhere.png)")


def test_palettes_and_animations_are_said(tmp_path: Path) -> None:
    for k in range(2):
        x_HW = np.random.default_rng(k).integers(0, 4, (SIDE, SIDE)).astype(np.uint8)
        image = Image.fromarray(x_HW, "P")
        image.putpalette(list(range(12)))
        image.save(tmp_path / f"{k}.png")
    assert said(opened(tmp_path).warnings, "2 images have a palette")
    moving = tmp_path / "moving"
    moving.mkdir()
    frames = [Image.fromarray(np.full((SIDE, SIDE, 3), 60 * k, np.uint8)) for k in range(3)]
    for name in ("a.png", "b.webp"):
        frames[0].save(moving / name, save_all=True, append_images=frames[1:])
    picture(moving / "c.png", 0)
    assert said(opened(moving).warnings, "2 images are animated")


def test_rates_of_false_alarms_are_of_anomalies_alone() -> None:
    values = {"data": {"images": ["x"]}, "alarms": {"images": 0.2}}
    assert RunSpec.make({"task": "anomaly", **values}).alarms.images == 0.2
    with pytest.raises(UsageError, match="alarms"):
        RunSpec.make({"task": "segmentation", **values})
    with pytest.raises(UsageError, match="alarms"):
        RunSpec.make({"task": "anomaly", **values, "alarms": {"pixels": 0}})


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"model": {"name": "rx", "config": {"guard_px": 4}}}, "“guard_px” is wrong"),
        (
            {"model": {"name": "autoencoder"}, "data": {"patch_px": 50}},
            "50 px are no multiple of 8 px",
        ),
    ],
)
def test_settings_of_a_model_that_cannot_be_are_refused_in_the_plan(
    tmp_path: Path, settings: dict[str, object], why: str
) -> None:
    for k in range(6):
        picture(tmp_path / f"{k}.png", k)
    values = spec(tmp_path).model_dump(mode="json", exclude_none=True)
    values["data"] |= settings.pop("data", {})
    with pytest.raises(UsageError, match=why):
        caudal.plan(RunSpec.make(values | settings))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, caudal.Result]:  # type: ignore[name-defined]
    root = good_and_spot(tmp_path_factory.mktemp("set"))
    run = root.parent / f"{root.name}-run"
    alarms = {"images": 0.3, "pixels": 0.02, "method": "quantile"}
    return root, run, caudal.train(spec(root, alarms=alarms), out=run)


def test_good_and_defect_folders_end_with_figures(trained: tuple[Path, Path, object]) -> None:
    _root, run, result = trained
    assert result.metrics["image_auroc"] == 1.0  # type: ignore[attr-defined]
    assert result.metrics["images"] == 5  # type: ignore[attr-defined]
    assert said(result.warnings, "those that set the thresholds")  # type: ignore[attr-defined]
    card = (run / "model" / "model.json").read_text()
    assert '"rate": 0.3' in card
    assert '"rate": 0.02' in card
    assert '"method": "extreme"' not in card


def drawn(run: Path) -> tuple[list[Example], str]:
    folder = RunFolder(run)
    return draw_odd_examples(folder, TrainPlan.model_validate(folder.read_json(folder.plan)))


def layer(example: Example, number: int) -> np.ndarray:
    _name, png = example.layers[number]
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"))


def test_examples_draw_a_contour_around_what_is_above_the_threshold(
    trained: tuple[Path, Path, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    examples, why = drawn(trained[1])
    assert not why
    odd = [one for one in examples if "spot" in one.name]
    assert len(odd) == 3
    for one in odd:
        rim_HW = layer(one, 1)[:, :, 3] > 0
        for edge in (rim_HW[8, 8:16], rim_HW[15, 8:16], rim_HW[8:16, 8], rim_HW[8:16, 15]):
            assert edge.all()
        assert not rim_HW[11:13, 11:13].any()  # what lies inside stays to be seen
    monkeypatch.setattr(odd_examples, "_LARGEST_PX", SIDE - 1)
    assert drawn(trained[1])[0] == []
    assert "images are larger than 31 px and are not drawn" in drawn(trained[1])[1]


def test_a_heat_map_is_a_cog_of_the_images_size(trained: tuple[Path, Path, object], tmp_path: Path) -> None:
    large = picture(tmp_path / "large.png", 7, odd=True, side=700)
    caudal.predict(trained[1], large, out=tmp_path / "heat.tif", ram="1GiB")
    with rasterio.open(tmp_path / "heat.tif") as file:
        assert (file.height, file.width, file.count, file.dtypes) == (700, 700, 1, ("float32",))
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert file.overviews(1)
        heat_HW = file.read(1)
    assert heat_HW[8:16, 8:16].min() > np.quantile(heat_HW, 0.99)


def test_images_of_a_pixel_and_of_all_shapes_are_learned_from(tmp_path: Path) -> None:
    for k in range(4):
        picture(tmp_path / f"good/{k}.png", k)
    draw = np.random.default_rng(0)
    for name, shape in (("one", (1, 1)), ("wide", (3, 90)), ("high", (70, 2)), ("two", (1, 2))):
        save(tmp_path / f"good/{name}.png", draw.integers(90, 110, (*shape, 3)).astype(np.uint8))
    found = caudal.train(spec(tmp_path, split={"folds": 2}), out=tmp_path / "run")
    assert found.metrics["false_alarms"] is not None
    scored = caudal.evaluate(tmp_path / "run", tmp_path / "good" / "one.png", ram="1GiB")
    assert scored.metrics is not None
    assert scored.metrics["images"] == 1


def test_images_that_were_learned_from_are_not_scored_again(trained: tuple[Path, Path, object]) -> None:
    root, run, _result = trained
    found = caudal.evaluate(run, root, ram="1GiB")
    assert found.metrics is not None
    assert found.metrics["images"] == 5  # two held out of ten, and three defects
    assert said(found.warnings, "8 good images were learned from and are left out")


def test_what_nobody_judged_is_not_said_to_be_judged(
    trained: tuple[Path, Path, object], tmp_path: Path
) -> None:
    picture(tmp_path / "new" / "a.png", 50)
    found = caudal.evaluate(trained[1], tmp_path / "new", ram="1GiB")
    assert said(found.warnings, "nothing is judged")
    picture(tmp_path / "loose" / "test" / "a.png", 50)
    found = caudal.evaluate(trained[1], tmp_path / "loose", ram="1GiB")
    assert found.metrics is not None
    assert found.metrics["images"] == 1
    assert said(found.warnings, "nobody said")


def test_an_empty_mask_of_a_defect_is_named_and_a_wrong_one_refused(
    trained: tuple[Path, Path, object], tmp_path: Path
) -> None:
    run = trained[1]
    root = mvtec(tmp_path / "set")
    nothing = mask(root / "ground_truth/spot/2_mask.png", empty=True)
    found = caudal.evaluate(run, root, ram="1GiB")
    assert said(found.warnings, f"mark no pixel: all pixels there count as normal (first: {nothing})")
    mask(root / "ground_truth/spot/2_mask.png", SIDE + 8)
    with pytest.raises(BadPair, match="2_mask"):
        caudal.evaluate(run, root, ram="1GiB")
    for given in ({"masks": str(root)}, {"labels": str(root)}):
        with pytest.raises(UsageError, match="says nothing to the task anomaly"):
            caudal.evaluate(run, root, ram="1GiB", **given)


def test_patches_are_remembered_by_the_maps_of_a_backbone(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    source = tmp_path / "tiny"
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=7
    )
    transformers.ResNetForImageClassification(config).save_pretrained(source)
    root = mvtec(tmp_path / "set")
    model = {"name": "patch_memory", "config": {"source": str(source)}}
    plan = caudal.plan(spec(root, model=model))
    weights = (source / "model.safetensors").stat().st_size
    assert plan.probe.static["weights"] > weights // 2
    assert plan.probe.static["gradients"] == plan.probe.static["optimizer"] == 0
    run = tmp_path / "run"
    found = caudal.train(plan, out=run)
    assert found.metrics["image_auroc"] == 1.0
    assert found.peak_bytes["ram"] <= found.predicted_bytes["ram"]
    card = json.loads((run / "model" / "model.json").read_text())
    assert card["config"]["architecture"]["model_type"] == "resnet"
    shutil.rmtree(source)  # the model's folder stands for itself
    again = caudal.evaluate(run, root, ram="1GiB")
    assert again.metrics is not None
    assert again.metrics["image_auroc"] == 1.0

"""Pictures of every kind are learned from as they are meant; others are refused in words."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image

import caudal
from caudal.core.errors import BadValues, CaudalError, DataError, UnreadableFile, UsageError
from caudal.data.locations import open_bytes
from caudal.data.sample_files.chips import ChipReader
from caudal.data.sample_values import blocks
from caudal.runs.spec import RunSpec
from caudal.runs.verbs.plan import open_work
from caudal.runs.work.picture_input import by_picture
from caudal.runs.work.pictures import bands_last

Draw = np.random.Generator


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def spec(root: Path, **sections: Any) -> RunSpec:
    training = {"steps": 20, "batch": 8, "average": 5, **sections.pop("training", {})}
    data = {"images": [str(root)], "image_px": 32, **sections.pop("data", {})}
    return RunSpec.make(
        {
            "task": "classification",
            "data": data,
            "training": training,
            "model": {"config": {"width": 4, "depth": 2}},
            "device": "cpu",
            "ram": "1GiB",
            **sections,
        }
    )


def blots(draw: Draw, side: int = 40) -> np.ndarray:
    """No two are alike."""
    small = Image.fromarray(draw.integers(20, 230, (5, 5, 3)).astype(np.uint8))
    return np.asarray(small.resize((side, side), Image.Resampling.BICUBIC))


def folder(root: Path, counts: dict[str, int], seed: int = 0) -> Path:
    draw = np.random.default_rng(seed)
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for k in range(count):
            Image.fromarray(blots(draw)).save(root / name / f"{name}{k:02d}.png")
    return root


def chip(path: Path, x_CHW: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    bands, high, wide = x_CHW.shape
    with rasterio.open(
        path, "w", driver="GTiff", width=wide, height=high, count=bands, dtype=str(x_CHW.dtype)
    ) as file:
        file.write(x_CHW)


# Values.


def test_each_picture_has_mean_0_and_deviation_1_and_light_does_not_count() -> None:
    draw = torch.Generator().manual_seed(0)
    x_BHWC = torch.randint(40, 200, (3, 16, 16, 5), generator=draw, dtype=torch.uint8)
    found = by_picture(x_BHWC)
    assert found.shape == (3, 5, 16, 16)
    assert torch.allclose(found.mean((2, 3)), torch.zeros(3, 5), atol=1e-5)
    assert torch.allclose(found.std((2, 3), correction=0), torch.ones(3, 5), atol=1e-4)
    other = by_picture(x_BHWC.double() * 0.25 + 900)
    assert torch.allclose(other, found, atol=1e-3)


def test_bands_that_do_not_vary_and_values_that_are_missing_become_0() -> None:
    x_BHWC = torch.full((2, 8, 8, 2), 7.0)
    x_BHWC[1, :, :, 0] = torch.arange(64.0).view(8, 8)
    x_BHWC[1, 0, 0] = torch.nan
    found = by_picture(x_BHWC)
    assert torch.isfinite(found).all()
    assert (found[0] == 0).all()
    assert found[1, :, 0, 0].tolist() == [0, 0]
    assert abs(float(found[1, 0].flatten()[1:].std(correction=0)) - 1) < 1e-4


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((2, 30, 40), (2, 30, 40, 1)), ((2, 30, 40, 3), (2, 30, 40, 3)), ((2, 3, 30, 40), (2, 30, 40, 3))],
)
def test_arrays_have_their_bands_last_wherever_they_were(
    shape: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    x = np.arange(np.prod(shape)).reshape(shape)
    assert bands_last(x).shape == expected


def test_the_recipe_of_a_model_that_learned_elsewhere_is_another() -> None:
    here, elsewhere = (
        RunSpec.make({"task": "classification", "data": {"images": ["-"]}, "model": model})
        for model in ({}, {"name": "backbone", "config": {"source": "somewhere"}})
    )
    assert (here.data.normalize, here.training.weight_decay) == ("picture", 0.3)
    assert (elsewhere.data.normalize, elsewhere.training.weight_decay) == ("set", 0.02)
    own = {"images": ["-"], "normalize": "picture"}
    made = {"name": "backbone", "config": {"source": "somewhere"}}
    asked = RunSpec.make({"task": "classification", "data": own, "model": made})
    assert asked.data.normalize == "picture"


# Formats.


def test_chips_of_five_bands_in_class_folders_are_learned_balanced_with_the_class_that_is_sought(
    tmp_path: Path,
) -> None:
    draw = np.random.default_rng(0)
    for kind, count in (("burned", 10), ("whole", 30)):
        for k in range(count):
            x_CHW = draw.integers(900, 1100, (5, 24, 20)).astype(np.uint16)
            if kind == "burned":
                x_CHW[4, 8:18, 6:16] = 4000
            chip(tmp_path / "chips" / kind / f"{k:02d}.tif", x_CHW)
    made = spec(
        tmp_path / "chips",
        data={"positive": "burned", "image_px": 16},
        training={"steps": 40, "balance": "samples", "learning_rate": 5e-3},
        split={"folds": 4},
    )
    work: Any = open_work(made)
    assert work.inputs.shape == "16×16×5"
    assert work.sought.names == ("whole", "burned")
    drawn = np.bincount(work.class_of[work.train.chosen.samples])
    assert drawn[0] == drawn[1]
    result = caudal.train(made, out=tmp_path / "run")
    assert result.metrics is not None
    assert result.metrics["auroc"] is not None
    assert result.metrics["auroc"] > 0.9
    assert json.loads((tmp_path / "run" / "tables.json").read_text())["classes"] == ["whole", "burned"]
    again = caudal.evaluate(tmp_path / "run", tmp_path / "chips")
    assert again.metrics is not None
    assert again.metrics["support_burned"] == 10
    assert again.metrics["auroc"] is not None
    assert again.metrics["auroc"] > 0.9
    caudal.predict(tmp_path / "run", tmp_path / "chips" / "burned", out=tmp_path / "said.csv")
    with (tmp_path / "said.csv").open() as file:
        assert list(next(csv.DictReader(file))) == ["file", "sample", "predicted", "p_whole", "p_burned"]


def test_chips_of_other_bands_than_their_neighbours_are_refused(tmp_path: Path) -> None:
    for k in range(6):
        chip(tmp_path / "ab"[k % 2] / f"{k}.tif", np.ones((3 + 2 * (k == 3), 8, 8), np.uint8))
    with pytest.raises(DataError, match="32, 32, 5"):
        open_work(spec(tmp_path))


def test_chips_with_missing_values_and_wide_numbers_are_read(tmp_path: Path) -> None:
    draw = np.random.default_rng(1)
    for k in range(24):
        x_CHW = draw.normal(5, 1, (2, 40, 30))
        x_CHW[:, :10] = np.nan
        chip(tmp_path / "data" / "ab"[k % 2] / f"{k:02d}.tif", x_CHW)
    work: Any = open_work(spec(tmp_path / "data"))
    for _first, _last, values in blocks(work.samples, np.arange(24), ("image",)):
        assert values["image"].dtype == np.float32
        assert np.isfinite(values["image"]).all()


def test_photographs_and_chips_are_not_mixed(tmp_path: Path) -> None:
    folder(tmp_path, {"a": 4, "b": 4})
    chip(tmp_path / "a" / "x.tif", np.ones((3, 8, 8), np.uint8))
    with pytest.raises(DataError, match="photographs and TIFF"):
        open_work(spec(tmp_path))


def test_a_raster_is_no_chip(tmp_path: Path) -> None:
    path = tmp_path / "a" / "wide.tif"
    path.parent.mkdir()
    with rasterio.open(
        path, "w", driver="GTiff", width=40000, height=40000, count=3, dtype="uint8", sparse_ok=True
    ):
        pass
    chip(tmp_path / "b" / "x.tif", np.ones((3, 8, 8), np.uint8))
    with pytest.raises(UnreadableFile, match=r"no chip|cannot hold"):
        ChipReader(32).part(open_bytes(str(path)), True)


def test_arrays_are_pictures_too(tmp_path: Path) -> None:
    draw = np.random.default_rng(2)
    x = np.stack([blots(draw, 24) for _k in range(40)])
    np.savez(tmp_path / "set.npz", image=np.moveaxis(x, -1, 1), label=np.arange(40) % 2)
    work: Any = open_work(spec(tmp_path / "set.npz", data={"samples": "rows"}))
    assert work.inputs.shape == "24×24×3"
    statistics = work.opened.kind.statistics(work.train, work.inputs, 2, 0)
    assert len(statistics.values["centre"][0]) == 3


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("grey.png", Image.fromarray(np.arange(1600, dtype=np.uint8).reshape(40, 40) % 251)),
        ("cmyk.jpg", Image.fromarray(np.full((40, 40, 3), 9, np.uint8)).convert("CMYK")),
        ("palette.png", Image.fromarray(np.arange(4800).reshape(40, 40, 3).astype(np.uint8)).convert("P")),
        ("dot.png", Image.fromarray(np.full((1, 1, 3), 200, np.uint8))),
        ("dot.jpg", Image.fromarray(np.full((1, 1, 3), 200, np.uint8))),
    ],
)
def test_grey_cmyk_palette_and_one_pixel_are_pictures(tmp_path: Path, name: str, image: Image.Image) -> None:
    folder(tmp_path, {"a": 6, "b": 6})
    image.save(tmp_path / "a" / name)
    work: Any = open_work(spec(tmp_path))
    assert work.facts.count == 13
    assert not work.samples.unreadable


def test_a_picture_on_its_side_is_the_same_upright(tmp_path: Path) -> None:
    x = blots(np.random.default_rng(3))[:, :24]
    for kind in "ab":
        (tmp_path / kind).mkdir()
    Image.fromarray(x).save(tmp_path / "a" / "0.jpg", quality=100, subsampling=0)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = Image.fromarray(np.rot90(x).copy())
    turned.save(tmp_path / "b" / "1.jpg", quality=100, subsampling=0, exif=exif)
    work: Any = open_work(spec(folder(tmp_path, {"a": 6, "b": 6})))
    names = [Path(work.samples.columns.names[k]).name for k in range(len(work.samples))]
    found = {}
    for first, _last, values in blocks(work.samples, np.arange(len(names)), ("image",)):
        found[names[first]] = values["image"][0].astype(int)
    assert np.abs(found["0.jpg"] - found["1.jpg"]).mean() < 3


def test_of_an_animation_the_first_picture_is_taken_and_that_is_said(tmp_path: Path) -> None:
    folder(tmp_path, {"a": 6, "b": 6})
    frames = [Image.fromarray(blots(np.random.default_rng(k))) for k in range(3)]
    frames[0].save(tmp_path / "a" / "moving.png", save_all=True, append_images=frames[1:])
    assert any("first picture of an animation" in text for text in open_work(spec(tmp_path)).warnings)


# What cannot be learned from.


def test_sixteen_bits_are_refused_by_name(tmp_path: Path) -> None:
    for kind in "ab":
        (tmp_path / kind).mkdir()
        for k in range(6):
            deep = (np.arange(400).reshape(20, 20) * 150).astype(np.uint16)
            Image.fromarray(deep).save(tmp_path / kind / f"{k}.png")
    with pytest.raises(UnreadableFile, match="16 bits a sample"):
        caudal.plan(spec(tmp_path))


def test_one_deep_picture_among_many_is_left_out_and_counted(tmp_path: Path) -> None:
    folder(tmp_path, {"a": 12, "b": 12})
    Image.fromarray(np.zeros((20, 20), np.uint16)).save(tmp_path / "a" / "deep.png")
    work: Any = open_work(spec(tmp_path))
    assert work.facts.count == 24
    assert any("deep.png" in text for text in work.warnings)


def test_one_class_alone_is_refused(tmp_path: Path) -> None:
    folder(tmp_path / "photos", {"a": 12})
    table = tmp_path / "labels.csv"
    table.write_text("file,label\n" + "".join(f"a{k:02d}.png,same\n" for k in range(12)))
    with pytest.raises(BadValues, match="one class alone: same"):
        caudal.plan(spec(tmp_path / "photos", data={"labels": str(table)}))
    with pytest.raises(UsageError, match="what is to be learned"):
        caudal.plan(spec(tmp_path / "photos"))


def test_a_class_of_one_picture_is_told(tmp_path: Path) -> None:
    work: Any = open_work(spec(folder(tmp_path, {"a": 20, "b": 20, "rare": 1})))
    where = [work.class_of[part].tolist() for part in (work.split.train, work.split.test)]
    assert sum(part.count(2) for part in where) <= 1
    assert any("“rare” has 1 samples" in text for text in work.warnings)


@pytest.mark.parametrize(
    ("rows", "error", "says"),
    [
        ("file,label\na00.png,a\nnowhere.png,b\n", BadValues, "1 files that are not there"),
        ("file,label\n", UnreadableFile, "has no row"),
        ("label\na\n", UnreadableFile, "no column of file names"),
        ("file,label\na00.png,\nb00.png,\n", BadValues, "no value that is known"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(
    tmp_path: Path, rows: str, error: type[CaudalError], says: str
) -> None:
    folder(tmp_path / "photos", {"a": 4, "b": 4})
    table = tmp_path / "labels.csv"
    table.write_text(rows)
    with pytest.raises(error, match=says):
        caudal.plan(spec(tmp_path / "photos", data={"labels": str(table)}))


@pytest.mark.parametrize("positive", ["c", ""])
def test_a_positive_class_that_is_none_is_refused_with_those_that_are(tmp_path: Path, positive: str) -> None:
    folder(tmp_path, {"a": 8, "b": 8})
    with pytest.raises(UsageError, match="the classes are: a, b"):
        open_work(spec(tmp_path, data={"positive": positive}))


# Copies and shortcuts.


def copies(root: Path, split: bool) -> Path:
    folder(root, {"a": 20, "b": 20})
    if split:
        for part, numbers in (("train", range(14)), ("test", range(14, 20))):
            for kind in "ab":
                (root / part / kind).mkdir(parents=True)
                for k in numbers:
                    (root / kind / f"{kind}{k:02d}.png").rename(root / part / kind / f"{kind}{k:02d}.png")
        for kind in "ab":
            (root / kind).rmdir()
        first, second = root / "train" / "a" / "a03.png", root / "test" / "a" / "again.jpg"
    else:
        first, second = root / "a" / "a03.png", root / "b" / "again.jpg"
    Image.open(first).resize((33, 35)).save(second, quality=80)
    return root


def test_copies_stay_on_one_side_of_our_split_and_other_classes_of_theirs_are_told(tmp_path: Path) -> None:
    root = copies(tmp_path / "photos", split=False)
    for fold in range(5):
        work: Any = open_work(spec(root, split={"fold": fold}))
        names = [Path(work.samples.columns.names[k]).name for k in range(len(work.samples))]
        pair = [names.index("a03.png"), names.index("again.jpg")]
        parts = (work.split.train, work.split.validation, work.split.test)
        assert [int(np.isin(pair, part).sum()) for part in parts].count(1) == 0
    assert any("none is on both sides" in text for text in work.warnings)
    assert any("have different classes" in text for text in work.warnings)


def test_copies_on_both_sides_of_a_given_split_are_told(tmp_path: Path) -> None:
    work: Any = open_work(spec(copies(tmp_path / "photos", split=True)))
    assert any("both sides of the split" in text and "too good" in text for text in work.warnings)


def test_a_size_that_betrays_the_class_is_told_and_kept_from_the_model(tmp_path: Path) -> None:
    draw = np.random.default_rng(5)
    for kind, side in (("a", 40), ("b", 60)):
        (tmp_path / kind).mkdir()
        for k in range(30):
            Image.fromarray(blots(draw, side + k % 5)).save(tmp_path / kind / f"{k}.png")
    work: Any = open_work(spec(tmp_path))
    assert any("The size of the pictures alone tells the classes apart" in text for text in work.warnings)
    (row,) = [row for row in work.checks.tables()["shortcuts"] if row["name"] == "size"]
    assert row["auroc"] > 0.99
    assert work.inputs.fields == ("image",)  # the model is given pixels alone, of one size
    assert work.inputs.shape == "32×32×3"

"""Splits never leak, pairs are found by name, bands are matched by what they see."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from caudal.core.errors import BadPair, BadValues, DataError, UnreadableFile, UsageError
from caudal.core.labels import IGNORE
from caudal.data.bands import common_name, layout_of
from caudal.data.classes import Classes, count_values, infer
from caudal.data.index import build
from caudal.data.pairs import find_pairs
from caudal.data.readers.base import Header
from caudal.data.split import split
from tests.data.sets import blob_set, write_tiff
from tests.data.test_order import index_of


@given(st.integers(5, 60), st.integers(0, 9), st.integers(2, 5))
def test_folds_hold_out_every_image_once_and_never_train_on_it(count: int, seed: int, folds: int) -> None:
    index = index_of([(8, 8)] * count)
    index = index.__class__(**{**index.__dict__, "bytes": np.arange(count)})
    held = []
    for fold in range(folds):
        parts = split(index, seed, folds, fold)
        assert not set(parts.train) & set(parts.held_out)
        assert len(parts.train) + len(parts.held_out) == count
        assert abs(len(parts.held_out) - count / folds) <= 1
        held += parts.held_out
    assert sorted(held) == list(range(count))


def test_copies_stay_on_one_side(tmp_path: Path) -> None:
    folder = blob_set(tmp_path, [(40, 40)] * 8)
    names = sorted((folder / "images").iterdir())
    names[7].write_bytes(names[0].read_bytes())
    index = build(find_pairs([folder], []))
    for fold in range(4):
        parts = split(index, 3, 4, fold)
        assert ({0, 7} <= set(parts.train)) or ({0, 7} <= set(parts.held_out))
        assert any("copies" in text for text in parts.warnings)


def test_groups_stay_on_one_side(tmp_path: Path) -> None:
    sites = [blob_set(tmp_path / f"site{k}", [(40, 40)] * 3, seed=k) for k in range(4)]
    index = build(find_pairs(sites, []))
    for fold in range(3):
        parts = split(index, 1, 3, fold, r"/(site[0-9])/")
        for site in range(4):
            members = set(range(3 * site, 3 * site + 3))
            assert members <= set(parts.train) or members <= set(parts.held_out)


def test_fewer_images_than_folds_is_said(tmp_path: Path) -> None:
    index = build(find_pairs([blob_set(tmp_path, [(40, 40)] * 3)], []))
    with pytest.raises(DataError, match=r"3 images.*5 parts.*folds to 3"):
        split(index, 0, 5, 0)


@pytest.mark.parametrize("pattern", ["(", "nothing like this"])
def test_a_wrong_group_pattern_is_said(tmp_path: Path, pattern: str) -> None:
    index = build(find_pairs([blob_set(tmp_path, [(40, 40)] * 3)], []))
    with pytest.raises((UsageError, DataError)):
        split(index, 0, 2, 0, pattern)


def test_a_missing_mask_is_named_and_all_are_counted(tmp_path: Path) -> None:
    folder = blob_set(tmp_path, [(40, 40)] * 4)
    (folder / "masks" / "scene 001 ñ.tif").unlink()
    (folder / "masks" / "scene 003 ñ.tif").unlink()
    with pytest.raises(BadPair, match=r"2 of 4 .*scene 001 ñ"):
        find_pairs([folder], [])


def test_the_mismatched_pairs_are_refused_by_name(data_dir: Path) -> None:
    pairs = find_pairs([data_dir / "seg_wildfire_s2" / "bad_pairs_shape_mismatch"], [])
    with pytest.raises(BadPair, match=r"DEWEY_20240715\.tif is 72×77 .* 225×225"):
        build(pairs)


def test_pairs_can_be_listed_in_a_csv(tmp_path: Path) -> None:
    folder = blob_set(tmp_path, [(40, 40)] * 2)
    table = folder / "pairs.csv"
    table.write_text("image,mask\nimages/scene 000 ñ.tif,masks/scene 001 ñ.tif\n", encoding="utf-8")
    assert [(a.name, b.name) for a, b in find_pairs([table], []) if b] == [
        ("scene 000 ñ.tif", "scene 001 ñ.tif")
    ]
    table.write_text("image,mask\nimages/none.tif,masks/scene 001 ñ.tif\n", encoding="utf-8")
    with pytest.raises(BadPair, match="not there"):
        find_pairs([table], [])
    table.write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="columns"):
        find_pairs([table], [])


def test_a_folder_with_nothing_in_it_is_said(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    with pytest.raises(UnreadableFile, match="holds no image"):
        find_pairs([tmp_path], [])
    with pytest.raises(UnreadableFile, match="no such"):
        find_pairs([tmp_path / "gone"], [])


def header(names: tuple[str, ...], bands: int = 5) -> Header:
    return Header(Path("x.tif"), 4, 4, bands, np.dtype("u2"), (4, 4), "none", names, None, False)


def test_two_band_orders_are_brought_to_one() -> None:
    model = ("B2", "B3", "B4", "B8", "B12")
    layout, blind = layout_of(header(("TCI_R", "TCI_G", "TCI_B", "B8", "B12")), model, 5)
    assert layout.order == (2, 1, 0, 3, 4)
    assert not blind
    layout, blind = layout_of(header(("a", "b", "c", "d", "e")), model, 5)
    assert layout.is_plain
    assert blind
    assert common_name("B02") == common_name("Blue") == common_name("TCI_B")


def test_other_band_counts_are_refused_by_name(tmp_path: Path) -> None:
    blob_set(tmp_path / "a", [(40, 40)] * 2, bands=3)
    blob_set(tmp_path / "b", [(40, 40)] * 2, bands=4)
    with pytest.raises(DataError, match="4 bands and the others have 3"):
        build(find_pairs([tmp_path / "a", tmp_path / "b"], []))


def test_mask_values_become_classes_aloud() -> None:
    assert infer({0, 255})[0] == Classes(values=(0, 255))
    assert infer({0, 1, 2, 255})[0] == Classes(values=(0, 1, 2), ignored=(255,))
    assert infer({0, 255})[1]
    assert infer({0, 3})[0] == Classes(values=(0, 3))


def test_class_numbers_follow_the_values() -> None:
    mask = np.array([[0, 255], [255, 7]], np.uint8)
    numbers = Classes(values=(0, 255), ignored=(7,)).numbers(mask, Path("m"))
    assert numbers.tolist() == [[0, 1], [1, IGNORE]]
    with pytest.raises(BadValues, match="7"):
        Classes(values=(0, 255)).numbers(mask, Path("m"))


@pytest.mark.parametrize(
    "mask",
    [np.arange(200, dtype=np.uint8).reshape(10, 20), np.array([[0.5, 1.0]]), np.array([[0, 1000]] * 3) + 0.1],
)
def test_what_is_no_mask_is_refused(mask: np.ndarray) -> None:
    with pytest.raises(BadValues):
        count_values(mask, Path("m"))


def test_a_mask_of_several_bands_is_refused(tmp_path: Path) -> None:
    folder = blob_set(tmp_path, [(40, 40)])
    write_tiff(folder / "masks" / "scene 000 ñ.tif", np.zeros((40, 40, 3), np.uint8))
    with pytest.raises(BadPair, match="3 bands"):
        build(find_pairs([folder], []))

"""What is good and what is not follows from the folders, and masks are found by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from caudal.core.errors import DataError
from caudal.data.mvtec import good_images, judged_images


def put(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(path)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("train/good/a.png", "test/good/b.png", "test/scratch/c.png", "test/hole/d.png"):
        put(tmp_path / name)
    put(tmp_path / "ground_truth/scratch/c_mask.png")
    return tmp_path


def test_images_are_learned_from_train_good_alone(root: Path) -> None:
    assert [path.name for path in good_images(root).paths] == ["a.png"]


def test_images_to_score_are_judged_by_their_folder(root: Path) -> None:
    found = {
        one.path.name: (one.kind, one.anomalous, one.mask and one.mask.name)
        for one in judged_images(root).images
    }
    assert found == {
        "b.png": ("good", False, None),
        "c.png": ("scratch", True, "c_mask.png"),
        "d.png": ("hole", True, None),
    }


def test_good_and_defect_folders_are_enough(tmp_path: Path) -> None:
    put(tmp_path / "good/a.png")
    put(tmp_path / "defect/b.png")
    assert [one.anomalous for one in judged_images(tmp_path).images] == [True, False]
    assert [path.name for path in good_images(tmp_path).paths] == ["a.png"]


def test_a_plain_folder_is_not_judged(tmp_path: Path) -> None:
    put(tmp_path / "x.png")
    assert [one.anomalous for one in judged_images(tmp_path).images] == [None]


def test_a_mask_that_is_missing_among_others_is_an_error(root: Path) -> None:
    put(root / "test/scratch/e.png")
    with pytest.raises(DataError, match=r"e\.png has no mask"):
        judged_images(root)

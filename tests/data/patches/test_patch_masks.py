"""Masks beside patches: class numbers of the same place, from the values that the masks hold."""

from __future__ import annotations

import itertools
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st

import caudal
from caudal.core.errors import BadPair, BadValues, UsageError
from caudal.core.labels import IGNORE
from caudal.core.units import Bytes
from caudal.data.index import build
from caudal.data.mask_values import mask_values
from tests.data.patches.patch_sets import (
    DRAWS,
    PATCH,
    VALUES,
    delivered,
    made,
    mask_of,
    placed,
)
from tests.data.sets import write_tiff


def test_patches_of_masks_are_their_windows_at_the_same_place(scenes: Path) -> None:
    stream = made(scenes, epochs=2)
    numbers = {value: number for number, value in enumerate(VALUES)} | {255: IGNORE}
    seen = Counter[int]()
    for batch in stream:
        assert list(batch) == ["image", "mask"]
        for x, y in zip(batch.numpy("image"), batch.numpy("mask"), strict=True):
            with rasterio.open(scenes / "masks" / f"{x[0, 0, 2]}.tif") as file:
                row, col = int(x[0, 0, 0]), int(x[0, 0, 1])
                high, wide = min(PATCH, file.height - row), min(PATCH, file.width - col)
                there = file.read(1, window=((row, row + high), (col, col + wide)))
            assert (y[:high, :wide] == np.vectorize(numbers.get)(there)).all()
            assert (y[high:] == IGNORE).all()  # mirrored out
            assert (y[:, wide:] == IGNORE).all()
            seen.update(np.unique(y).tolist())
    assert set(seen) == {0, 1, 2, IGNORE}
    assert any("0 → 0, 7 → 1, 40 → 2" in note for note in stream.plan.notes)
    assert "Mask value 255 is left out." in stream.plan.notes
    assert stream.plan.fields == ("image uint16[32, 32, 4]", "mask uint8[32, 32]")


def test_masks_change_neither_images_nor_order(scenes: Path) -> None:
    alone = made(scenes, masks=None, ram="256MiB")
    assert alone.plan.fields == ("image uint16[32, 32, 4]",)
    assert alone.plan.notes == ()
    for with_mask, without in zip(made(scenes, ram="256MiB"), alone, strict=True):
        assert list(without) == ["image"]
        assert (with_mask.numpy("image") == without.numpy("image")).all()


@pytest.mark.parametrize("where", ["masks", ".", "moved", "file"])
def test_masks_are_found_beside_the_images_or_where_it_is_said(
    scenes: Path, tmp_path: Path, where: str
) -> None:
    folder = tmp_path / "set"
    shutil.copytree(scenes, folder)
    data, masks = folder, folder / where
    if where == "moved":
        data, masks = folder / "images", (folder / "masks").rename(tmp_path / "elsewhere")
    if where == "file":
        data, masks = folder / "images" / "2.tif", folder / "masks" / "2.tif"
    stream = caudal.stream(data, 2, patch_px=PATCH, masks=str(masks), ram="24MiB")
    assert stream.plan.fields[1:] == ("mask uint8[32, 32]",)
    assert len(delivered(stream)) == len(stream)


def test_masks_that_are_none_are_refused(scenes: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Masks belong to patches"):
        caudal.stream(scenes / "images", masks=scenes / "masks")
    write_tiff(tmp_path / "m" / "a.tif", placed(64, 64, 0)[:, :, 3:])
    with pytest.raises(BadValues, match="different values"):
        caudal.stream(scenes / "images" / "2.tif", 2, patch_px=32, masks=tmp_path / "m" / "a.tif")
    write_tiff(tmp_path / "nan.tif", np.full((64, 64, 1), np.nan, np.float32))
    with pytest.raises(BadValues, match="hold no value"):
        caudal.stream(scenes / "images" / "2.tif", 2, patch_px=32, masks=tmp_path / "nan.tif")
    write_tiff(tmp_path / "one" / "0.tif", mask_of(200, 150, 0)[:, :, None])
    with pytest.raises(BadPair, match="5 of 6 images have no mask"):
        caudal.stream(scenes / "images", 2, patch_px=32, masks=tmp_path / "one")


@given(
    tile=st.sampled_from([(0, 0), (16, 32), (64, 16)]),
    size=st.tuples(st.integers(1, 150), st.integers(1, 150)),
    ram=st.integers(1, 10**6),
)
@DRAWS
def test_every_pixel_of_a_mask_is_counted_once_whatever_its_blocks_and_the_budget(
    tmp_path_factory: pytest.TempPathFactory, tile: tuple[int, int], size: tuple[int, int], ram: int
) -> None:
    folder = tmp_path_factory.mktemp("masks")
    how = {"tiled": True, "blockysize": tile[0], "blockxsize": tile[1]} if tile[0] else {}
    y = mask_of(*size, 1).astype(np.int32)
    image = write_tiff(folder / "x.tif", placed(*size, 1))
    index = build([(image, write_tiff(folder / "y.tif", y[:, :, None], **how))])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("caudal.data.mask_values._WINDOW_BYTES", 5000)
        found = mask_values(index, 3, Bytes(ram))
    values, counts = np.unique(y, return_counts=True)
    assert found.counts == dict(zip(values.tolist(), counts.tolist(), strict=True))
    assert found.pixel_bytes == 4


def test_a_transform_sees_masks(scenes: Path) -> None:
    def only_masks(sample: dict[str, Any]) -> dict[str, Any]:
        return {"share": np.float32((sample["mask"] == 1).mean())[None]}

    stream = made(scenes, transform=only_masks, ram="64MiB")
    shares = np.concatenate([batch.numpy("share").flatten() for batch in stream])
    wanted = np.concatenate([(batch.numpy("mask") == 1).mean((1, 2)) for batch in made(scenes, ram="64MiB")])
    assert np.sort(shares) == pytest.approx(np.sort(wanted), abs=1e-6)


def test_real_masks_lie_on_their_images_and_holes_are_left_out(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    folder = data_dir / "seg_wildfire_s2" / "b2_b3_b4_b8_b12"
    images = {}
    for path in sorted((folder / "images").iterdir()):
        with rasterio.open(path) as x, rasterio.open(folder / "masks" / path.name) as y:
            images[path.name] = np.moveaxis(x.read(), 0, 2).astype(np.float32), y.read(1)
    stream = caudal.stream(folder, 8, patch_px=64, masks=folder, ram="128MiB")
    matched = 0
    for batch in itertools.islice(stream, 6):
        for x, y in zip(batch.numpy("image"), batch.numpy("mask"), strict=True):
            corner = next(zip(*np.nonzero(x[:40, :40].any(2)), strict=True), None)
            if corner is None:
                continue
            assert any(_lies_in(x, y, corner, *pair) for pair in images.values())
            matched += 1
    assert matched > 30
    stream.close()


def _lies_in(
    x: np.ndarray, y: np.ndarray, corner: tuple[int, int], image: np.ndarray, mask: np.ndarray
) -> bool:
    """Whether `x` is a window of the image, and `y` that of its mask, left out where the image has a hole."""
    at = np.nonzero((image == x[corner]).all(2))
    for row, col in zip(at[0] - corner[0], at[1] - corner[1], strict=True):
        there = image[max(row, 0) : row + 64, max(col, 0) : col + 64]
        if row < 0 or col < 0:
            continue
        high, wide = there.shape[:2]
        hole = np.isnan(there).any(2)
        if (np.where(hole[:, :, None], 0, there) == x[:high, :wide]).all():
            wanted = np.where(hole, IGNORE, mask[row : row + 64, col : col + 64])
            return bool((wanted == y[:high, :wide]).all())
    return False

"""Bad input: one sentence, the right error, nothing lost."""

import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from caudal.core.errors import BadModel, BadPair, BadValues, CaudalError, DataError, UnreadableFile
from caudal.runs.folder import RunFolder
from caudal.runs.verbs.plan import make_spec
from caudal.runs.verbs.predict import predict
from caudal.runs.verbs.train import train
from caudal.runs.work.scenes import Scenes
from tests.conftest import TINY_MODEL, TINY_TRAINING
from tests.data.sets import blob_set, write_tiff

pytestmark = pytest.mark.usefixtures("warm")


def spec_of(folder: Path, **more: object):  # type: ignore[no-untyped-def]
    return make_spec(
        "segmentation", folder, ram="1GiB", training=TINY_TRAINING | {"steps": 4}, model=TINY_MODEL, **more
    )


def said(error: CaudalError) -> None:
    """A fact and a mend, a sentence each."""
    assert error.message
    assert "\n" not in error.message
    assert error.hint


def bomb(path: Path) -> None:
    """A TIFF whose header claims 10^6 × 10^6 pixels."""
    tags = [(256, 4, 10**6), (257, 4, 10**6), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1),
            (278, 4, 10**6), (279, 4, 4)]  # fmt: skip
    body = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + body + b"\0" * 8)


@pytest.mark.parametrize("fault", ["empty", "text", "truncated header", "bomb", "folder"])
def test_a_file_that_is_none_is_named_before_training(tmp_path: Path, fault: str) -> None:
    folder = blob_set(tmp_path / "set", [(40, 40)] * 6)
    victim = sorted((folder / "images").iterdir())[2]
    good = victim.read_bytes()
    victim.unlink()
    if fault == "folder":
        victim = sorted((folder / "images").iterdir())[2]
        (folder / "masks" / victim.name).unlink()
        (folder / "masks" / victim.name).mkdir()
    elif fault == "bomb":
        bomb(victim)
    else:
        victim.write_bytes(
            {"empty": b"", "text": b"hello, I am no TIFF", "truncated header": good[:100]}[fault]
        )
    with pytest.raises((UnreadableFile, BadPair)) as caught:
        Scenes.open(spec_of(folder))
    said(caught.value)
    assert victim.name in caught.value.message


def test_a_file_that_ends_in_the_middle_stops_the_run_by_name(tmp_path: Path) -> None:
    folder = blob_set(tmp_path / "set", [(60, 60)] * 6)
    victim = sorted((folder / "images").iterdir())[1]
    victim.write_bytes(victim.read_bytes()[:-3000])
    with pytest.raises(UnreadableFile) as caught:
        train(spec_of(folder), out=tmp_path / "run")
    said(caught.value)
    assert victim.name in caught.value.message
    assert not list((tmp_path / "run").rglob("*.part"))


def test_an_image_of_nothing_but_nan_is_named(tmp_path: Path) -> None:
    folder = blob_set(tmp_path / "set", [(40, 40)] * 6, dtype="float32")
    victim = sorted((folder / "images").iterdir())[3]
    write_tiff(victim, np.full((40, 40, 3), np.nan, np.float32))
    with pytest.raises(BadValues) as caught:
        train(spec_of(folder), out=tmp_path / "run")
    said(caught.value)
    assert victim.name in caught.value.message


def test_masks_of_one_class_alone_are_refused(tmp_path: Path) -> None:
    folder = blob_set(tmp_path / "set", [(40, 40)] * 6)
    for mask in (folder / "masks").iterdir():
        write_tiff(mask, np.zeros((40, 40, 1), np.uint8))
    with pytest.raises(BadValues, match="one class alone") as caught:
        train(spec_of(folder), out=tmp_path / "run")
    said(caught.value)


def test_a_class_absent_from_the_held_out_part_is_said_and_has_no_score(tmp_path: Path) -> None:
    folder = blob_set(tmp_path / "set", [(40, 40)] * 6)
    spec = spec_of(folder)
    scenes = Scenes.open(spec)
    index, parts = scenes.index, scenes.parts
    for i in parts.held_out:
        path = index.mask(i)
        assert path is not None
        write_tiff(path, np.zeros((40, 40, 1), np.uint8))
    result = train(spec, out=tmp_path / "run")
    assert result.metrics is not None
    assert result.metrics["iou"] is None
    assert any("held-out" in text for text in result.warnings)


def test_a_mask_value_that_is_no_class_is_named(tmp_path: Path) -> None:
    folder = blob_set(tmp_path / "set", [(40, 40)] * 6)
    victim = sorted((folder / "masks").iterdir())[0]
    write_tiff(victim, np.full((40, 40, 1), 7, np.uint8))
    data = spec_of(folder).data.model_dump() | {"classes": (0, 1)}
    spec = spec_of(folder).model_copy(update={"data": type(spec_of(folder).data)(**data)})
    with pytest.raises(BadValues) as caught:
        train(spec, out=tmp_path / "run")
    said(caught.value)
    assert victim.name in caught.value.message
    assert "7" in caught.value.message


def test_other_bands_than_the_model_s_are_refused(tiny_run: Path, tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "five.tif", np.zeros((40, 40, 5), np.uint16))
    with pytest.raises(DataError, match=r"5 bands .* 3") as caught:
        predict(tiny_run, path, out=tmp_path / "out.tif", ram="1GiB")
    said(caught.value)
    assert not (tmp_path / "out.tif").exists()


def test_an_unreadable_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile) as caught:
        Scenes.open(spec_of(tmp_path / "gone"))
    said(caught.value)


def test_a_bare_state_dict_predicts_and_says_what_it_lacks(
    tiny_run: Path, tiny_set: Path, tmp_path: Path
) -> None:
    from caudal.models import weights

    model, _card = weights.load(tiny_run / "model")
    torch.save(model.state_dict(), tmp_path / "bare.pt")
    image = sorted((tiny_set / "images").iterdir())[0]
    result = predict(tmp_path / "bare.pt", image, out=tmp_path / "out.tif", ram="1GiB")
    assert (tmp_path / "out.tif").is_file()
    assert any("normalization" in text for text in result.warnings)


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path, tiny_set: Path) -> None:
    with pytest.raises(BadModel) as caught:
        predict(tmp_path, tiny_set / "images", out=tmp_path / "maps", ram="1GiB")
    said(caught.value)


def test_a_broken_tile_becomes_nodata_and_is_reported(tiny_run: Path, tmp_path: Path) -> None:
    import rasterio

    draw = np.random.default_rng(0)
    path = write_tiff(
        tmp_path / "big.tif", draw.integers(200, 900, (2200, 700, 3)).astype(np.uint16),
        tiled=True, blockxsize=256, blockysize=256, compress="deflate",
    )  # fmt: skip
    with path.open("r+b") as file:
        file.seek(path.stat().st_size - 40_000)
        file.write(b"\0" * 40_000)
    result = predict(tiny_run, path, out=tmp_path / "out.tif", ram="1GiB")
    assert result.warnings
    with rasterio.open(tmp_path / "out.tif") as file:
        classes = file.read(1)
    assert (classes[:1024] != 255).all()
    assert (classes == 255).any()


def test_a_run_folder_in_use_is_refused(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.begin(spec_of(blob_set(tmp_path / "set", [(40, 40)] * 5)))
    with folder.lock(), pytest.raises(CaudalError, match="working in"):
        folder.lock()

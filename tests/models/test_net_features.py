"""Laws of features from a network: from any folder of weights, never learned, and stored with the model."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.models.test_backbone import make_folder

from caudal.core.errors import BadModel, UsageError
from caudal.models import weights
from caudal.models.net_features import projection
from caudal.models.patch_memory import PatchMemory

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("weights") / "resnet", "resnet")


def own(path: Path, name: str, bands: int, config: dict[str, Any]) -> Path:
    torch.manual_seed(0)
    outputs = 1 if name == "autoencoder" else 2
    card = weights.ModelCard(task="any", architecture=name, config=config, bands=bands, outputs=outputs)
    weights.save(path / "model", weights.build(name, bands, outputs, config), card)
    return path


def memory(source: Path, bands: int = 3, **config: Any) -> PatchMemory:
    model = weights.build("patch_memory", bands, 1, {"source": str(source), "bank_bytes": 1 << 17, **config})
    assert isinstance(model, PatchMemory)
    return model


def learned(model: PatchMemory, x_BCHW: torch.Tensor) -> PatchMemory:
    model.begin(1 << 24)
    model.take(x_BCHW)
    model.finish()
    return model


def test_a_stored_model_scores_alike_without_its_source(tmp_path: Path, resnet: Path) -> None:
    source = shutil.copytree(resnet, tmp_path / "source")
    x_BCHW = torch.randn(2, 3, 64, 48)
    model = learned(memory(source), x_BCHW)
    expected = model.score_map(x_BCHW * 1.5)
    card = weights.ModelCard(
        task="anomaly",
        architecture="patch_memory",
        config=model.config.model_dump(mode="json"),
        bands=3,
        outputs=1,
    )
    weights.save(tmp_path / "stored", model, card)
    shutil.rmtree(source)
    again, _card = weights.load(tmp_path / "stored")
    assert torch.allclose(again.score_map(x_BCHW * 1.5), expected, atol=1e-5)  # type: ignore[operator]
    assert again.score_map(x_BCHW).max() < expected.max()  # type: ignore[operator]


def test_nothing_of_the_network_is_learned(resnet: Path) -> None:
    model = memory(resnet).train()
    before = {name: value.clone() for name, value in model.features.state_dict().items()}  # type: ignore[attr-defined]
    learned(model, torch.randn(4, 3, 32, 32) * 9 + 5)
    assert not any(weight.requires_grad for weight in model.parameters())
    for name, value in model.features.state_dict().items():  # type: ignore[attr-defined]
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize(
    ("name", "bands", "config"),
    [
        ("residual", 5, {"width": 8, "depth": 3}),
        ("unet", 2, {"width": 4, "depth": 3, "stem": 1}),
        ("autoencoder", 4, {"width": 4}),
    ],
)
def test_a_model_of_ours_gives_its_maps(
    tmp_path: Path, name: str, bands: int, config: dict[str, Any]
) -> None:
    model = memory(own(tmp_path, name, bands, config), bands)
    x_BCHW = torch.randn(1, bands, 64, 64)
    features_BDhw = model.features(x_BCHW)
    stride = model.features.stride_px
    assert stride <= 8
    assert features_BDhw.shape == (1, model.features.channels, 64 // stride, 64 // stride)
    scores = learned(model, x_BCHW).score_map(x_BCHW)
    assert scores.shape == (1, 64, 64)
    with pytest.raises(BadModel, match=f"of {bands} bands, and features of {bands + 1} are wanted"):
        memory(tmp_path, bands + 1)


def test_what_is_out_of_reach_changes_no_feature(tmp_path: Path) -> None:
    model = memory(own(tmp_path, "residual", 2, {"width": 8, "depth": 2, "stem": 1}), 2)
    side = 16 * (2 + 2 * model.features.reach_px // 16)
    x_BCHW = torch.randn(1, 2, side, side)
    changed = x_BCHW.clone()
    changed[..., 0, 0] += 100
    gap = (model.features(x_BCHW) - model.features(changed)).abs().amax(1)[0]
    far = model.features.reach_px // model.features.stride_px + 1
    assert gap[0, 0] > 0
    assert gap[far:, :].max() < 1e-4
    assert gap[:, far:].max() < 1e-4


def test_many_channels_are_brought_to_few_that_keep_distances() -> None:
    points = torch.randn(40, 512, generator=torch.Generator().manual_seed(0))
    ratio = torch.pdist(points @ projection(512, 128).T) / torch.pdist(points)
    assert ratio.min() > 0.7
    assert ratio.max() < 1.3


def test_a_network_without_maps_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadModel, match="no maps of features"):
        memory(make_folder(tmp_path / "vit", "vit"))


def test_a_bank_that_holds_hardly_a_patch_is_refused_by_name(resnet: Path) -> None:
    model = memory(resnet, bank_bytes=1 << 14, columns=4096)
    model.features.channels = 4096
    with pytest.raises(UsageError, match="fewer than 64 patches"):
        model.begin(1 << 24)

"""Laws of the models: sizes, reach, folding, files, and files that must not be opened."""

import pickle
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from caudal.core.errors import BadModel
from caudal.models import tensor_file, weights
from caudal.models.fold import folded
from caudal.models.norm import GroupedBatchNorm2d
from caudal.models.unet import UNet, UNetConfig


def warmed(bands: int = 3, classes: int = 2, **config: int) -> UNet:
    """A network whose running statistics are not those of a fresh one."""
    torch.manual_seed(0)
    model = UNet(bands, classes, UNetConfig(**({"width": 8, "depth": 2} | config)))
    for _ in range(3):
        model(torch.randn(4, bands, 32, 32) * 2 + 1)
    return model.eval()


@pytest.mark.parametrize(("bands", "classes", "depth"), [(1, 2, 1), (5, 3, 2), (8, 2, 3)])
def test_scores_have_the_size_of_the_input(bands: int, classes: int, depth: int) -> None:
    model = UNet(bands, classes, UNetConfig(width=4, depth=depth))
    side = 3 * model.multiple_px
    assert model(torch.zeros(2, bands, side, 2 * side)).shape == (2, classes, side, 2 * side)


@pytest.mark.parametrize(("depth", "stem"), [(1, 1), (2, 1), (3, 1), (2, 2)])
def test_the_receptive_field_reaches_no_further_than_said(depth: int, stem: int) -> None:
    model = warmed(bands=1, depth=depth, stem=stem)
    reach, side = model.receptive_field_px, 2 * ((model.receptive_field_px + 8) // 16 * 16) + 32
    furthest = 0
    for row in range(side // 2, side // 2 + model.multiple_px):
        x = torch.randn(1, 1, side, side, requires_grad=True)
        model(x)[0, :, row, row].sum().backward()  # type: ignore[no-untyped-call]
        assert x.grad is not None
        touched = torch.nonzero(x.grad[0, 0])
        furthest = max(furthest, int((touched - row).abs().max()))
    assert furthest <= reach
    assert furthest > reach * 0.7  # and the figure is no idle one


def test_folding_changes_nothing_but_rounding() -> None:
    model, x = warmed(), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(folded(model)(x), model(x), atol=1e-4, rtol=1e-4)
    assert any(isinstance(m, GroupedBatchNorm2d) for m in model.modules())


@pytest.mark.parametrize("micro_batch", [4, 8, 16])
def test_statistics_do_not_depend_on_the_micro_batch(micro_batch: int) -> None:
    torch.manual_seed(1)
    x = torch.randn(16, 6, 5, 5) * 3 + torch.arange(16)[:, None, None, None]
    whole, parts = GroupedBatchNorm2d(6, 4), GroupedBatchNorm2d(6, 4)
    expected = whole(x)
    found = torch.cat([parts(part) for part in x.split(micro_batch)])
    assert torch.equal(expected, found)
    assert torch.equal(whole.running_var, parts.running_var)  # type: ignore[arg-type]


def test_a_model_folder_gives_back_the_same_model(tmp_path: Path) -> None:
    model = warmed()
    card = weights.ModelCard(
        task="segmentation", architecture="unet", config=model.config.model_dump(), bands=3, outputs=2
    )
    weights.save(tmp_path, model, card)
    again, read = weights.load(tmp_path)
    assert read == card
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(again(x), model(x))
    assert sorted(p.name for p in tmp_path.iterdir()) == [weights.CARD, weights.WEIGHTS]


@pytest.mark.parametrize("stem", [1, 2])
def test_the_kind_of_a_bare_state_dict_is_found_from_its_keys(tmp_path: Path, stem: int) -> None:
    model = warmed(bands=5, classes=3, width=8, depth=3, stem=stem)
    for number, state in enumerate(
        (model.state_dict(), {"state_dict": {f"module.{k}": v for k, v in model.state_dict().items()}})
    ):
        path = tmp_path / f"{number}.pt"
        torch.save(state, path)
        again, card = weights.load(path)
        assert (card.bands, card.outputs, card.config["depth"], card.config["stem"]) == (5, 3, 3, stem)
        assert card.normalization is None
        x = torch.randn(1, 5, 32, 32)
        with torch.no_grad():
            assert torch.equal(again(x), model(x))


class Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (Path.touch, (self.path,))


def test_a_pickle_with_code_is_refused_and_its_code_does_not_run(tmp_path: Path) -> None:
    trap, path = tmp_path / "ran", tmp_path / "model.pt"
    torch.save({"weights": Malicious(trap)}, path)
    with pytest.raises(BadModel, match="could run code") as caught:
        weights.load(path)
    assert caught.value.hint
    path.write_bytes(pickle.dumps(Malicious(trap)))
    with pytest.raises(BadModel):
        weights.load(path)
    assert not trap.exists()


@pytest.mark.parametrize("content", [b"", b"not a model", b"PK\x03\x04 cut"])
def test_what_is_no_model_is_said_in_a_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    with pytest.raises(BadModel) as caught:
        weights.load(path)
    assert "\n" not in str(caught.value)


def test_weights_of_an_unknown_kind_are_refused(tmp_path: Path) -> None:
    torch.save({"layer.weight": torch.zeros(3)}, tmp_path / "m.pt")
    with pytest.raises(BadModel, match=r"layer\.weight"):
        weights.load(tmp_path / "m.pt")
    with pytest.raises(BadModel, match="not there"):
        weights.load(tmp_path / "gone")


def test_a_truncated_model_folder_is_refused(tmp_path: Path) -> None:
    model = warmed()
    card = weights.ModelCard(
        task="segmentation", architecture="unet", config=model.config.model_dump(), bands=3, outputs=2
    )
    weights.save(tmp_path, model, card)
    file = tmp_path / weights.WEIGHTS
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(BadModel):
        weights.load(tmp_path)


def test_our_tensor_files_are_read_by_the_library(tmp_path: Path) -> None:
    tensors = {
        "a": torch.randn(3, 4).to(torch.bfloat16),
        "b": torch.arange(5),
        "c": torch.zeros(0, 2),
        "d": torch.tensor(2.5, dtype=torch.float64),
        "e": torch.randn(4, 3).t(),
        "f": torch.tensor([True, False]),
    }
    tensor_file.write(tmp_path / "x.safetensors", tensors, {"note": "ñ"})
    with safe_open(tmp_path / "x.safetensors", framework="pt") as file:
        assert file.metadata() == {"note": "ñ"}
        for name, value in tensors.items():
            assert torch.equal(file.get_tensor(name), value)
            assert file.get_tensor(name).dtype == value.dtype

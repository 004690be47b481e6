"""Laws of the residual network: any size and number of bands, and no dependence on micro-batches."""

import pytest
import torch

from caudal.models.fold import folded
from caudal.models.residual import ResidualConfig, ResidualNet


def warmed(bands: int = 3, classes: int = 2, **config: int) -> ResidualNet:
    """A network whose running statistics and gains are not those of a fresh one."""
    torch.manual_seed(0)
    model = ResidualNet(bands, classes, ResidualConfig(**({"width": 8, "depth": 2} | config)))
    for name, weight in model.named_parameters():
        if name.endswith("norm2.weight"):
            torch.nn.init.uniform_(weight, 0.5, 1.5)
    for _ in range(3):
        model(torch.randn(4, bands, 32, 32) * 2 + 1)
    return model.eval()


@pytest.mark.parametrize(("bands", "classes"), [(1, 2), (3, 7), (12, 3)])
@pytest.mark.parametrize("size", [(32, 32), (33, 47), (1, 1), (1, 9)])
def test_any_size_and_any_bands_give_one_score_a_class(
    bands: int, classes: int, size: tuple[int, int]
) -> None:
    model = warmed(bands, classes)
    scores = model(torch.randn(2, bands, *size))
    assert scores.shape == (2, classes)
    assert torch.isfinite(scores).all()
    assert (model.bands, model.outputs) == (bands, classes)


def test_scores_are_the_head_on_the_mean_of_the_last_map() -> None:
    model, x = warmed(), torch.randn(2, 3, 40, 24)
    seen: list[torch.Tensor] = []
    model.get_submodule(model.explained_layer).register_forward_hook(lambda _m, _i, out: seen.append(out))
    scores = model(x)
    assert torch.equal(seen[0], model.features(x))
    assert seen[0].shape == (2, 32, 5, 3)
    assert torch.allclose(model.head(seen[0].mean((2, 3))), scores)


@pytest.mark.parametrize("micro_batch", [4, 8])
def test_gradients_and_statistics_do_not_depend_on_the_micro_batch(micro_batch: int) -> None:
    x = torch.randn(16, 3, 24, 24)
    whole, parts = warmed().train(), warmed().train()
    whole(x).square().sum().backward()
    for part in x.split(micro_batch):
        parts(part).square().sum().backward()
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, rtol=1e-3, atol=1e-4)
    for one, other in zip(whole.buffers(), parts.buffers(), strict=True):
        assert torch.allclose(one, other)


@pytest.mark.parametrize("levels", [1, 3])
def test_computing_activations_again_changes_nothing(levels: int) -> None:
    x = torch.randn(8, 3, 24, 24)
    plain, again = warmed().train(), warmed().train()
    again.recompute = levels
    assert again.recompute_levels == 3
    for model in (plain, again):
        model(x).square().sum().backward()
    for one, other in zip(plain.parameters(), again.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, rtol=1e-4, atol=1e-5)
    for one, other in zip(plain.buffers(), again.buffers(), strict=True):
        assert torch.equal(one, other)


def test_folding_changes_nothing_but_rounding() -> None:
    model, x = warmed(blocks=2), torch.randn(2, 3, 40, 40)
    folded_model = folded(model)
    assert not any("Norm" in type(m).__name__ for m in folded_model.modules())
    with torch.no_grad():
        assert torch.allclose(folded_model(x), model(x), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("config", [{}, {"depth": 4, "blocks": 2, "stem": 1}, {"stem": 4, "width": 4}])
def test_the_kind_is_found_from_the_shapes(config: dict[str, int]) -> None:
    model = warmed(5, 3, **config)
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = ResidualNet.from_shapes(shapes)
    assert found is not None
    assert found.config == model.config
    assert (found.bands, found.classes) == (5, 3)
    found.load_state_dict(model.state_dict())
    assert ResidualNet.from_shapes({**shapes, "more": (1,)}) is None
    assert ResidualNet.from_shapes({"conv1.weight": (8, 3, 3, 3), "head.weight": (2, 8)}) is None


def test_what_is_trained_can_tell_two_textures_apart() -> None:
    torch.manual_seed(0)
    model = ResidualNet(1, 2, ResidualConfig(width=8, depth=2))
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
    truth = torch.arange(16) % 2

    def images() -> torch.Tensor:
        x = torch.randn(16, 1, 24, 24)
        return torch.where(truth[:, None, None, None] == 1, torch.nn.functional.avg_pool2d(x, 3, 1, 1) * 3, x)

    for _ in range(40):
        loss = torch.nn.functional.cross_entropy(model(images()), truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    assert (model(images()).argmax(1) == truth).float().mean() >= 0.9

"""Laws of explanations: captum's own numbers, on the planted reason, gone when nothing learned is left."""

from __future__ import annotations

import functools
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from captum.attr import IntegratedGradients, LayerGradCam, LayerGradientXActivation, Occlusion
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import spearmanr
from torch import nn

from caudal.core.errors import BadModel, UsageError
from caudal.inference.explain.baselines import baseline
from caudal.inference.explain.energy import energy
from caudal.inference.explain.explain import Checks, Looks, explain
from caudal.inference.explain.explanation import Explanation
from caudal.inference.explain.faithfulness import BASELINES, curve, random_area, random_map
from caudal.inference.explain.layers import explained_layer
from caudal.inference.explain.methods import METHODS, Effort, attribute
from caudal.inference.explain.randomization import randomize, rank_correlation
from caudal.inference.explain.target import Target, TargetScore, choose_target
from caudal.models.unet import UNet, UNetConfig
from tests.inference.explain.planted import PATCH, SIDE, Net, images, trained

NO_CHECKS = Checks(points=0, stages=0)


@pytest.fixture(scope="module")
def net() -> Net:
    return trained()


@pytest.fixture(scope="module")
def explained(net: Net) -> list[tuple[Explanation, ...]]:
    """Every method's explanation of four images with the patch that makes them class 1, fully checked."""
    x_BCHW, _labels, masks_BHW = images(4, seed=10, only=1)
    looks = Looks(methods=METHODS, checks=Checks(points=16, random_maps=2, stages=2, draws=2))
    return [
        explain(net, x_CHW, choose_target(net, x_CHW), looks, lesion_HW=mask_HW)
        for x_CHW, mask_HW in zip(x_BCHW, masks_BHW, strict=True)
    ]


def _means(explained: list[tuple[Explanation, ...]], figure: str) -> dict[str, float]:
    return {
        one[0].method: float(np.mean([found.figures()[figure] for found in one]))
        for one in zip(*explained, strict=True)
    }


# --- as captum gives them


def _unpadded(net: nn.Module, x_BCHW: torch.Tensor, k: int, region_HW: torch.Tensor | None) -> nn.Module:
    """What captum is asked directly: the plain model, its target by index."""

    class Summed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (self.net(x)[:, k] * region_HW).sum((1, 2))

    return net if region_HW is None else Summed()


def _by_captum(method: str, net: nn.Module, layer: nn.Module, x_BCHW: torch.Tensor, k: int | None):
    size = x_BCHW.shape[2:]
    if method == "gradcam":
        return F.interpolate(LayerGradCam(net, layer).attribute(x_BCHW, k), size, mode="bilinear")[0, 0]
    if method == "hirescam":
        product = LayerGradientXActivation(net, layer).attribute(x_BCHW, k).sum(1, keepdim=True)
        return F.interpolate(product, size, mode="bilinear")[0, 0]
    if method == "integrated_gradients":
        return IntegratedGradients(net).attribute(x_BCHW, 0, k, n_steps=32, internal_batch_size=8)[0].sum(0)
    side = -(-SIDE // 6)
    window, stride = (x_BCHW.shape[1], side, side), (x_BCHW.shape[1], side // 2, side // 2)
    return Occlusion(net).attribute(x_BCHW, window, stride, baselines=0, target=k, perturbations_per_eval=8)[
        0, 0
    ]


@pytest.mark.parametrize("method", METHODS)
def test_a_classifiers_map_is_captums(net: Net, method: str) -> None:
    x_CHW = images(1, seed=4)[0][0]
    (found,) = explain(net, x_CHW, Target(1), Looks([method], checks=NO_CHECKS))
    wanted = _by_captum(method, net, net.features, x_CHW[None].requires_grad_(), 1).detach().numpy()
    assert found.map_HW.dtype == np.float32
    np.testing.assert_allclose(found.map_HW, wanted, rtol=1e-3, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("method", METHODS)
def test_a_segmentation_models_map_is_captums_of_the_summed_region(method: str) -> None:
    torch.manual_seed(3)
    unet = UNet(3, 4, UNetConfig(width=4, depth=2)).eval()
    x_CHW = torch.randn(3, SIDE, SIDE)
    region_HW = np.zeros((SIDE, SIDE), bool)
    region_HW[5:20, 8:30] = True
    target = choose_target(unet, x_CHW, 2, region_HW)
    (found,) = explain(unet, x_CHW, target, Looks([method], checks=NO_CHECKS))
    asked = _unpadded(unet, x_CHW[None], 2, torch.from_numpy(region_HW))
    wanted = _by_captum(method, asked, unet.down[-1], x_CHW[None].requires_grad_(), None).detach().numpy()
    np.testing.assert_allclose(found.map_HW, wanted, rtol=1e-3, atol=1e-5 * np.abs(wanted).max())
    with torch.no_grad():
        p_HW = unet(x_CHW[None]).softmax(1)[0, 2].numpy()
    assert found.probability == pytest.approx(p_HW[region_HW].mean(), abs=1e-6)


def test_the_batch_bounds_memory_and_changes_nothing_else(net: Net) -> None:
    x_CHW, sizes = images(1, seed=4)[0][0], []
    score = TargetScore(net, Target(1))
    hook = net.register_forward_hook(lambda _net, args, _scores: sizes.append(len(args[0])))
    try:
        for method in ("integrated_gradients", "occlusion"):
            small, large = (attribute(method, score, x_CHW, "", Effort(batch=b)) for b in (3, 40))
            np.testing.assert_allclose(small, large, atol=1e-4 * np.abs(large).max())
            assert max(sizes[: len(sizes) // 2]) == 3
            sizes.clear()
        small, large = (curve(score, x_CHW, small, "deletion", batch=b).area for b in (3, 40))
    finally:
        hook.remove()
    assert small == pytest.approx(large, abs=1e-5)
    assert sorted(set(sizes))[-1] == 33
    assert sizes[:11] == [3] * 11


# --- the planted reason


def test_the_energy_lies_on_the_patch_that_decides(explained: list[tuple[Explanation, ...]]) -> None:
    inside, area = _means(explained, "energy"), (PATCH / SIDE) ** 2
    # A map from features of 8 × 8 cells cannot be sharper than its cells.
    assert inside["integrated_gradients"] > 0.9
    assert inside["occlusion"] > 6 * area
    assert inside["gradcam"] > 3 * area
    assert inside["hirescam"] > 3 * area
    assert min(_means(explained, "pointing").values()) == 1


def test_the_maps_fall_apart_when_all_that_was_learned_is_gone(
    explained: list[tuple[Explanation, ...]],
) -> None:
    for method, correlation in _means(explained, "randomized").items():
        assert abs(correlation) < 0.4, method


def test_a_map_that_needs_no_model_does_not_fall_apart(net: Net) -> None:
    x_CHW = images(1, seed=4)[0][0]
    edges_HW = np.abs(np.gradient(x_CHW[0].numpy())[1])
    found = randomize(net, x_CHW, lambda _model: edges_HW)
    assert [stage.correlation for stage in found.stages] == pytest.approx([1.0] * 4)
    assert not found.falls_apart


def test_randomization_leaves_the_model_as_it_was_and_reaches_every_layer(net: Net) -> None:
    before = {name: value.clone() for name, value in net.state_dict().items()}
    changed: list[set[str]] = []

    def watch(spoiled: nn.Module) -> np.ndarray:
        if spoiled is net:
            return random_map(SIDE, SIDE)
        state = spoiled.state_dict()
        changed.append({name for name in before if not torch.equal(before[name], state[name])})
        return np.zeros((SIDE, SIDE), np.float32)

    found = randomize(net, images(1, seed=4)[0][0], watch, stages=3, draws=1)
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in before.items())
    # Biases change places, where they may end as they were.
    assert {"head.weight"} <= changed[0] <= {"head.weight", "head.bias"}
    assert changed[0] < changed[1] < changed[2]
    assert {name for name in before if name.endswith("weight")} <= changed[2]
    assert [stage.module for stage in found.stages] == ["head", "features.6", "features.0"]
    assert found.falls_apart  # a map without any value says nothing


def test_the_map_deletes_faster_than_maps_of_noise(explained: list[tuple[Explanation, ...]]) -> None:
    chance = _means(explained, "deletion_random")
    for method, area in _means(explained, "deletion").items():
        assert area < chance[method], method
    assert _means(explained, "insertion")["hirescam"] > _means(explained, "insertion_random")["hirescam"]


def test_an_upside_down_map_deletes_slower(net: Net) -> None:
    x_CHW = images(1, seed=10, only=1)[0][0]
    score = TargetScore(net, Target(1))
    map_HW = attribute("hirescam", score, x_CHW, "features", Effort())
    right, wrong = (curve(score, x_CHW, sign * map_HW, "deletion") for sign in (1, -1))
    assert right.area < random_area(score, x_CHW, "deletion") < wrong.area


@pytest.mark.parametrize("method", ["gradcam", "hirescam"])
@pytest.mark.parametrize("size", [(32, 32), (16, 48)])
def test_tokens_are_laid_out_as_the_picture_that_they_are_of(method: str, size: tuple[int, int]) -> None:
    class Tokens(nn.Module):
        def forward(self, x_BChw: torch.Tensor) -> torch.Tensor:
            first = x_BChw.mean((2, 3))[:, None]
            return torch.cat([first, x_BChw.flatten(2).transpose(1, 2)], 1)

    class Transformer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches, self.tokens, self.head = nn.Conv2d(3, 6, 4, 4), Tokens(), nn.Linear(6, 2)

        def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
            # Of the tokens of places alone, so that both layers below get the same gradient.
            return self.head(self.tokens(self.patches(x_BCHW))[:, 1:].square().mean(1))

    torch.manual_seed(5)
    net, x_CHW = Transformer().eval(), torch.randn(3, *size)
    as_picture, as_tokens = (
        explain(net, x_CHW, Target(1), Looks([method], layer, checks=NO_CHECKS))[0].map_HW
        for layer in ("patches", "tokens")
    )
    assert np.ptp(as_picture) > 0
    np.testing.assert_allclose(as_tokens, as_picture, rtol=1e-4, atol=1e-6)


# --- curves


@pytest.mark.parametrize("direction", ["deletion", "insertion"])
def test_a_curve_goes_from_the_image_to_nothing_or_back(net: Net, direction) -> None:
    x_CHW = images(1, seed=4)[0][0]
    found = curve(TargetScore(net, Target(0)), x_CHW, random_map(SIDE, SIDE), direction, points=7, batch=3)
    nothing_CHW = baseline(x_CHW, BASELINES[direction])
    with torch.no_grad():
        ends = net(torch.stack([x_CHW, nothing_CHW])).softmax(1)[:, 0].tolist()
    assert [found.probabilities[0], found.probabilities[-1]] == pytest.approx(
        ends if direction == "deletion" else ends[::-1], abs=1e-6
    )
    assert found.shares[0] == 0
    assert found.shares[-1] == 1
    assert found.area == pytest.approx(np.trapezoid(found.probabilities, found.shares))


def test_pixels_go_in_the_order_of_the_map() -> None:
    class Mean(nn.Module):
        def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
            seen.append(x_BCHW[:, 0].clone())
            return x_BCHW.mean((2, 3)).repeat(1, 2)

    seen: list[torch.Tensor] = []
    map_HW = np.arange(16, dtype=np.float32).reshape(4, 4)
    curve(TargetScore(Mean(), Target(0)), torch.ones(1, 4, 4), map_HW, "deletion", points=4, instead="zero")
    kept = [frame.flatten().nonzero().flatten().tolist() for frame in torch.cat(seen)]
    assert kept == [list(range(n)) for n in (16, 12, 8, 4, 0)]


@pytest.mark.parametrize(("bands", "high", "wide"), [(1, 5, 9), (7, 16, 16), (3, 1, 1)])
def test_baselines_keep_shape_and_drop_detail(bands: int, high: int, wide: int) -> None:
    x_CHW = torch.randn(bands, high, wide)
    for kind in ("zero", "mean", "blurred"):
        nothing_CHW = baseline(x_CHW, kind)
        assert nothing_CHW.shape == x_CHW.shape
        assert nothing_CHW.var() <= x_CHW.var() or x_CHW.numel() == bands
    torch.testing.assert_close(baseline(x_CHW, "mean").mean((1, 2)), x_CHW.mean((1, 2)))


# --- energy and ranks


def test_energy_counts_what_is_positive() -> None:
    map_HW = np.array([[3, -50], [1, 0]], np.float32)
    mask_HW = np.array([[True, True], [False, False]])
    found = energy(map_HW, mask_HW)
    assert (found.inside, found.area, found.pointing) == (0.75, 0.5, True)
    assert energy(map_HW, ~mask_HW).pointing is False
    nothing = energy(-np.abs(map_HW), mask_HW)
    assert (nothing.inside, nothing.pointing) == (None, None)


@given(arrays(np.float32, (2, 40), elements=st.integers(-5, 5).map(float)))
def test_rank_correlation_is_spearmans(pair: np.ndarray) -> None:
    a, b = pair
    if len(set(a.tolist())) == 1 or len(set(b.tolist())) == 1:
        assert rank_correlation(a, b) == 0
    else:
        assert rank_correlation(a, b) == pytest.approx(spearmanr(a, b).statistic, abs=1e-9)


# --- targets and layers


def test_a_classifier_is_asked_about_the_class_that_it_chose(net: Net) -> None:
    x_BCHW, labels, _masks = images(4, seed=20)
    assert [choose_target(net, x_CHW).index for x_CHW in x_BCHW] == labels.tolist()


class Pixels(nn.Module):
    """A segmentation model whose scores are the image's own bands."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 3, 1)
        with torch.no_grad():
            self.body.weight.copy_(torch.eye(3)[:, :, None, None])
            self.body.bias.zero_()
        self.head = nn.Identity()

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x_BCHW)) * 1.0


def test_a_segmentation_model_is_asked_about_its_most_frequent_class_but_the_first() -> None:
    given_HW = torch.tensor([[0, 0, 0, 0], [0, 0, 2, 2], [1, 0, 2, 0]])
    x_CHW = F.one_hot(given_HW, 3).permute(2, 0, 1).float()
    target = choose_target(Pixels(), x_CHW)
    assert target.index == 2
    assert torch.equal(target.region_HW, given_HW == 2)
    assert torch.equal(choose_target(Pixels(), x_CHW, 1).region_HW, given_HW == 1)
    assert choose_target(Pixels(), x_CHW * 0 + torch.tensor([1.0, 0, 0])[:, None, None]).index == 0
    corner_HW = np.zeros((3, 4), bool)
    corner_HW[2, 0] = True
    assert choose_target(Pixels(), x_CHW, region_HW=corner_HW).index == 1


def test_one_score_is_a_probability_by_the_logistic_function() -> None:
    class One(nn.Module):
        def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
            return x_BCHW.mean((1, 2, 3))[:, None]

    x_CHW = torch.full((1, 4, 4), 0.5)
    found = TargetScore(One(), choose_target(One(), x_CHW)).probability(x_CHW[None])
    assert float(found) == pytest.approx(1 / (1 + np.exp(-0.5)))


def test_an_image_of_any_size_is_explained_at_its_own_size() -> None:
    unet = UNet(2, 2, UNetConfig(width=4, depth=2)).eval()
    x_CHW = torch.randn(2, 37, 50)
    mask_HW = np.ones((37, 50), bool)
    looks = Looks(METHODS, checks=Checks(points=2, random_maps=1, stages=1, draws=1))
    for found in explain(unet, x_CHW, choose_target(unet, x_CHW, 1, mask_HW), looks, lesion_HW=mask_HW):
        assert found.map_HW.shape == (37, 50)
        assert np.isfinite(found.map_HW).all()
        assert found.energy is not None
        assert found.energy.inside in (None, pytest.approx(1.0))


def test_the_layer_is_the_users_else_the_models_else_the_last_that_gives_a_picture(net: Net) -> None:
    x_CHW = torch.randn(3, 16, 16)
    assert explained_layer(net, x_CHW) == "features"
    assert explained_layer(net, x_CHW, "features.3") == "features.3"
    assert explained_layer(UNet(3, 2, UNetConfig(width=4, depth=2)).eval(), x_CHW) == "down.2"
    own = Net()
    own.explained_layer = own.features[4]
    assert explained_layer(own, x_CHW) == "features.4"
    named = Net()
    named.explained_layer = "features.1"
    assert explained_layer(named, x_CHW) == "features.1"
    pooled = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    assert explained_layer(pooled, x_CHW) == "0"
    scorer = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1))
    assert explained_layer(scorer, x_CHW) == "1"  # not the scores themselves


# --- refused


def _asks(net: nn.Module, **choice: object) -> object:
    return choose_target(net, torch.randn(3, 16, 16), **choice)


@pytest.mark.parametrize(
    ("ask", "error", "says"),
    [
        (lambda net: _asks(net, index=2), UsageError, "no class 2"),
        (lambda net: _asks(net, index=-1), UsageError, "no class -1"),
        (lambda net: _asks(net, region_HW=np.ones((16, 16), bool)), UsageError, "whole images"),
        (lambda net: _asks(Pixels(), region_HW=np.ones((4, 16), bool)), UsageError, "4×16 px"),
        (lambda net: _asks(Pixels(), region_HW=np.zeros((16, 16), bool)), UsageError, "empty"),
        (lambda net: choose_target(Pixels(), torch.ones(3, 4, 4), 2), UsageError, "to no pixel"),
        (lambda net: choose_target(net, torch.full((3, 16, 16), torch.nan)), BadModel, "not finite"),
        (lambda net: _asks(nn.Flatten(2)), BadModel, "only scores of classes"),
        (lambda net: explained_layer(net, torch.ones(3, 16, 16), "neck"), UsageError, "no layer “neck”"),
        (lambda net: explained_layer(nn.Flatten(), torch.ones(3, 4, 4)), BadModel, "picture of features"),
        (lambda net: _explained(net, Looks(["crystal_ball"])), UsageError, "crystal_ball"),
        (lambda net: _explained(net, Looks(["gradcam"], "head", checks=NO_CHECKS)), BadModel, "“head”"),
        (lambda net: _explained(net, Looks(["hirescam"], "head", checks=NO_CHECKS)), BadModel, "“head”"),
        (lambda net: _explained(net, Looks(), lesion_HW=np.ones((4, 4), bool)), UsageError, "4×4 px"),
    ],
)  # fmt: skip
def test_what_cannot_be_explained_is_refused(net: Net, ask, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says) as caught:
        ask(net)
    assert caught.value.hint


def _explained(net: Net, looks: Looks, **more: object) -> object:
    return explain(net, torch.randn(3, SIDE, SIDE), Target(0), looks, **more)


def test_without_captum_the_extra_is_named(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(UsageError, match="captum") as caught:
        _explained(net, Looks(checks=NO_CHECKS))
    assert "caudal[explain]" in caught.value.hint


def test_it_works_inside_inference_mode_and_with_frozen_weights(net: Net) -> None:
    x_CHW = images(1, seed=4)[0][0]
    ask = functools.partial(explain, net, x_CHW, Target(1), Looks(METHODS, checks=NO_CHECKS))
    wanted = [found.map_HW for found in ask()]
    with torch.inference_mode():
        inside = [found.map_HW for found in ask()]
    net.requires_grad_(False)
    try:
        frozen = [found.map_HW for found in ask()]
    finally:
        net.requires_grad_(True)
    np.testing.assert_array_equal(wanted, inside)
    np.testing.assert_array_equal(wanted, frozen)

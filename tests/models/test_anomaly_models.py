"""Laws of the models of anomalies: their maps, their reach, what they hold, and files of them."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch.utils._python_dispatch import TorchDispatchMode

from caudal.core.errors import BadValues, DoesNotFit, UsageError
from caudal.models.anomaly_map import AnomalyMap, Fitted, MapScores, smoothed
from caudal.models.autoencoder import Autoencoder, AutoencoderConfig
from caudal.models.coreset import Coreset, nearest
from caudal.models.local_rx import NOISE, local_scores
from caudal.models.moments import FLOOR, Moments, shrunk
from caudal.models.patch_memory import PatchMemory, PatchMemoryConfig
from caudal.models.rx import Rx, RxConfig

MIB = 1 << 20


def fitted(model: Any, x: torch.Tensor, valid: torch.Tensor | None = None) -> Any:
    model.begin(64 * MIB)
    for i in range(0, len(x), 2):
        model.take(x[i : i + 2], None if valid is None else valid[i : i + 2])
    model.finish()
    return model


def small_autoencoder(x: torch.Tensor) -> Autoencoder:
    torch.manual_seed(0)
    model = Autoencoder(x.shape[1], 1, AutoencoderConfig(width=4, depth=2, latent=3))
    model(x)
    return model.eval()


MAKERS: dict[str, Callable[[torch.Tensor], Any]] = {
    "autoencoder": small_autoencoder,
    "global rx": lambda x: fitted(Rx(x.shape[1], 1, RxConfig()), x),
    "local rx": lambda x: fitted(Rx(x.shape[1], 1, RxConfig(background="local", guard_px=3, outer_px=11)), x),
    "patch memory": lambda x: fitted(PatchMemory(x.shape[1], 1, PatchMemoryConfig(bank_bytes=1 << 16)), x),
}


def texture(images: int, bands: int, side: int, seed: int = 0) -> torch.Tensor:
    draws = torch.Generator().manual_seed(seed)
    mix = torch.eye(bands) + 0.3 * torch.randn(bands, bands, generator=draws)
    return torch.einsum("dc,bchw->bdhw", mix, torch.randn(images, bands, side, side, generator=draws))


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("bands", [1, 3, 8])
def test_a_map_has_a_finite_score_for_each_pixel(name: str, bands: int) -> None:
    model = MAKERS[name](texture(4, bands, 32))
    assert isinstance(model, AnomalyMap)
    scores = model.score_map(texture(2, bands, 24 * model.multiple_px, 1))
    assert scores.shape == (2, 24 * model.multiple_px, 24 * model.multiple_px)
    assert scores.dtype == torch.float32
    assert torch.isfinite(scores).all()
    assert (scores >= 0).all()


@pytest.mark.parametrize("name", MAKERS)
def test_a_planted_spot_scores_above_all_else(name: str) -> None:
    x = texture(4, 4, 64) * 0.3
    model = MAKERS[name](x)
    odd = texture(1, 4, 64, 9) * 0.3
    odd[0, :, 30:33, 40:43] = torch.tensor([4.0, -4.0, 4.0, -4.0])[:, None, None]
    scores = model.score_map(odd)[0]
    row, col = divmod(int(scores.argmax()), 64)
    assert 28 <= row <= 34
    assert 38 <= col <= 44


@pytest.mark.parametrize("name", MAKERS)
def test_a_tile_with_enough_around_it_scores_as_in_the_whole(name: str) -> None:
    model = MAKERS[name](texture(4, 2, 64))
    x = texture(1, 2, 256, 3)
    reach = -(-model.receptive_field_px // model.multiple_px) * model.multiple_px
    whole = model.score_map(x)[0]
    for row, col in ((0, 96), (96, 96), (128, 0)):
        top, left = max(0, row - reach), max(0, col - reach)
        tile = model.score_map(x[:, :, top : row + 32 + reach, left : col + 32 + reach])[0]
        found = tile[row - top : row - top + 32, col - left : col - left + 32]
        expected = whole[row : row + 32, col : col + 32]
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", MAKERS)
def test_the_reach_is_no_idle_figure(name: str) -> None:
    model = MAKERS[name](texture(4, 1, 64))
    side = 2 * model.receptive_field_px // 16 * 16 + 64
    x = texture(1, 1, side, 4)
    furthest = 0
    before = model.score_map(x)[0]
    for at in range(side // 2, side // 2 + model.multiple_px):
        other = x.clone()
        other[:, :, at, at] += 30
        touched = torch.nonzero((model.score_map(other)[0] - before).abs() > 1e-4)
        furthest = max(furthest, int((touched - at).abs().max()))
    assert model.receptive_field_px * 0.6 < furthest <= model.receptive_field_px


@pytest.mark.parametrize("name", MAKERS)
def test_a_stored_model_comes_back_by_its_shapes_and_by_its_config(name: str, tmp_path: Path) -> None:
    model = MAKERS[name](texture(4, 3, 32))
    save_file(
        {key: value.contiguous() for key, value in model.state_dict().items()}, tmp_path / "m.safetensors"
    )
    state = load_file(tmp_path / "m.safetensors")
    x = texture(1, 3, 32, 5)
    by_config = type(model)(3, 1, type(model).Config.make(model.config.model_dump()))
    with torch.device("meta"):
        on_meta = type(model)(3, 1, model.config)
        by_shapes = type(model).from_shapes({key: tuple(value.shape) for key, value in state.items()})
    by_config.load_state_dict(state)
    on_meta.load_state_dict(state, assign=True)
    assert by_shapes is not None
    by_shapes.load_state_dict(state, assign=True)
    expected = model.score_map(x)
    for again in (by_config, on_meta):
        assert torch.equal(again.eval().score_map(x), expected)
    if name != "local rx":  # its ring is not in its weights
        assert torch.allclose(by_shapes.eval().score_map(x), expected, rtol=1e-5, atol=1e-6)
    others = [kind for kind in (Autoencoder, Rx, PatchMemory) if kind is not type(model)]
    assert all(kind.from_shapes({k: tuple(v.shape) for k, v in state.items()}) is None for kind in others)


@pytest.mark.parametrize("name", MAKERS)
def test_autocast_does_not_blur_distances(name: str) -> None:
    model = MAKERS[name](texture(4, 3, 32))
    if name == "autoencoder":
        pytest.skip("a network is meant to be computed in bfloat16")
    x = texture(1, 3, 32, 6)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model.score_map(x), MapScores(model)(x)[:, 0])
        assert torch.equal(model.score_map(x), _without_autocast(model, x))


def _without_autocast(model: Any, x: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", enabled=False):
        scores: torch.Tensor = model.score_map(x)
    return scores


@pytest.mark.parametrize("name", ["global rx", "patch memory"])
def test_pixels_that_are_not_valid_teach_nothing(name: str) -> None:
    x = texture(4, 3, 32)
    valid = torch.ones(4, 32, 32, dtype=torch.bool)
    valid[:, :, 16:] = False
    spoiled = x.clone()
    spoiled[:, :, :, 16:] = 1e3
    clean = x.clone()
    clean[:, :, :, 16:] = x[:, :, :, :16].flip(3)  # so that what is near the seam is alike
    kind, config = (Rx, RxConfig()) if name == "global rx" else (PatchMemory, PatchMemoryConfig())
    learned = fitted(kind(3, 1, config), spoiled, valid)
    if name == "global rx":
        assert torch.allclose(learned.mean, x[:, :, :, :16].mean((0, 2, 3)), atol=1e-5)
    odd = texture(1, 3, 32, 8)
    odd[:, :, 10:20, 10:20] = 1e3
    assert learned.score_map(odd)[0, 15, 15] > 10 * learned.score_map(x[:1])[0, 15, 4]
    assert isinstance(learned, Fitted)


@pytest.mark.parametrize("name", ["global rx", "patch memory"])
def test_nothing_seen_is_refused(name: str) -> None:
    model: Any = Rx(2, 1, RxConfig()) if name == "global rx" else PatchMemory(2, 1, PatchMemoryConfig())
    model.begin(64 * MIB)
    model.take(torch.zeros(1, 2, 16, 16), torch.zeros(1, 16, 16, dtype=torch.bool))
    with pytest.raises(BadValues):
        model.finish()
    with pytest.raises(DoesNotFit):
        model.begin(1000)


# ---- Reed and Xiaoli ----


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 7), st.integers(2, 400), st.integers(1, 6), st.floats(-1e4, 1e4), st.integers(0, 99))
def test_moments_of_parts_are_those_of_the_whole(
    columns: int, rows: int, parts: int, offset: float, seed: int
) -> None:
    x = np.random.default_rng(seed).normal(size=(rows, columns)) * 3 + offset
    moments = Moments(columns)
    for part in np.array_split(x, parts):
        moments.add(torch.from_numpy(part))
    assert moments.count == rows
    assert np.allclose(moments.mean_C, x.mean(0), rtol=1e-10, atol=1e-10)
    assert np.allclose(moments.covariance(), np.cov(x.T).reshape(columns, columns), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("shrinkage", [0.0, 0.2])
def test_the_global_distance_is_mahalanobis(shrinkage: float) -> None:
    x = texture(4, 5, 32)
    model = fitted(Rx(5, 1, RxConfig(shrinkage=shrinkage, smooth_px=0)), x)
    rows = x.permute(0, 2, 3, 1).reshape(-1, 5).double().numpy()
    covariance, share = np.cov(rows.T), max(shrinkage, FLOOR)
    covariance = (1 - share) * covariance + share * np.trace(covariance) / 5 * np.eye(5)
    away = texture(1, 5, 16, 2)[0].permute(1, 2, 0).double().numpy() - rows.mean(0)
    expected = np.einsum("hwc,cd,hwd->hw", away, np.linalg.inv(covariance), away)
    assert np.allclose(model.score_map(texture(1, 5, 16, 2))[0], expected, rtol=1e-4)


def test_the_local_distance_is_that_from_each_pixels_own_ring() -> None:
    x = texture(1, 3, 20)[0]
    guard, outer = 3, 9
    found = local_scores(x, guard, outer, 0.1).numpy()
    rows, cols = np.mgrid[:20, :20]
    for row, col in ((0, 0), (5, 7), (10, 10), (19, 3), (19, 19)):
        away = np.maximum(abs(rows - row), abs(cols - col))
        ring = x.double().numpy()[:, (away <= outer // 2) & (away > guard // 2)]
        covariance = np.cov(ring) + NOISE * np.eye(3)
        covariance = 0.9 * covariance + 0.1 * np.trace(covariance) / 3 * np.eye(3)
        gap = x[:, row, col].double().numpy() - ring.mean(1)
        assert found[row, col] == pytest.approx(gap @ np.linalg.inv(covariance) @ gap, rel=1e-4)


def test_strips_of_a_local_map_join_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    x = texture(1, 2, 64)[0]
    whole = local_scores(x, 3, 11, None)
    monkeypatch.setattr("caudal.models.local_rx.STRIP_BYTES", 8 * 3 * 6 * (64 + 11) * 16)
    assert torch.allclose(local_scores(x, 3, 11, None), whole, rtol=1e-5)


@pytest.mark.parametrize("background", ["global", "local"])
def test_bands_that_repeat_or_never_change_are_no_trouble(background: str) -> None:
    x = texture(2, 4, 32)
    x[:, 1], x[:, 2] = x[:, 0], 0.5
    model = fitted(Rx(4, 1, RxConfig(background=background)), x)  # type: ignore[arg-type]
    assert torch.isfinite(model.score_map(x)).all()
    flat = fitted(Rx(4, 1, RxConfig(background=background)), torch.full((1, 4, 32, 32), 2.0))  # type: ignore[arg-type]
    assert not flat.score_map(torch.full((1, 4, 32, 32), 2.0)).any()


def test_few_rows_are_shrunk_more_than_many() -> None:
    covariance = torch.cov(texture(1, 6, 8)[0].flatten(1)).double()[None]
    few, many = (shrunk(covariance, torch.tensor([n]), None)[0] for n in (8, 8000))
    assert torch.linalg.cond(few) < torch.linalg.cond(many) <= torch.linalg.cond(covariance[0])


# ---- the memory of patches ----


class HeldBytes(TorchDispatchMode):
    """Bytes of all tensors alive that were made inside, `given` not counted, and the most there ever were."""

    def __init__(self, given: torch.Tensor) -> None:
        super().__init__()
        self.now = self.most = 0
        self.pieces = list[int]()
        self._seen: set[int] = {given.untyped_storage()._cdata}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: Any) -> None:
        if storage._cdata in self._seen or not storage.nbytes():
            return
        self._seen.add(storage._cdata)
        self.pieces.append(storage.nbytes())
        self.now += storage.nbytes()
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())

    def _gone(self, key: int, nbytes: int) -> None:
        self._seen.discard(key)
        self.now -= nbytes


@settings(deadline=None, max_examples=15)
@given(st.integers(2, 30), st.integers(0, 6000), st.sampled_from([1 << 20, 3 << 20]), st.integers(0, 9))
def test_a_coreset_covers_what_it_was_given_and_keeps_its_rows(
    columns: int, count: int, budget: int, seed: int
) -> None:
    points = torch.randn(count, columns, generator=torch.Generator().manual_seed(seed))
    coreset = Coreset.within(budget, columns, 500)
    assert Coreset.bytes_for(len(coreset._kept), columns) <= budget
    coreset.take(points)
    assert len(coreset.points) <= 500
    if count:
        assert len(coreset.points) > 0.3 * min(count, 500)
        room = torch.empty(7 * len(coreset.points))
        assert nearest(points, coreset.points, room).max() <= 4 * coreset.radius


@pytest.mark.parametrize("budget", [600 << 10, 2 << 20])
def test_bytes_stay_below_the_budget_for_any_number_of_points(budget: int) -> None:
    points = torch.randn(20_000, 16)
    with HeldBytes(points) as held:
        coreset = Coreset.within(budget, 16, 10**9)
        coreset.take(points)
    assert budget / 3 < held.most <= budget


def test_all_equal_points_leave_one() -> None:
    coreset = Coreset(100, 4)
    coreset.take(torch.ones(5000, 4) * 3)
    assert len(coreset.points) == 1


def test_the_stored_memory_keeps_its_bytes_for_any_number_of_images() -> None:
    sizes = []
    for images in (2, 40):
        model = fitted(PatchMemory(3, 1, PatchMemoryConfig(bank_bytes=1 << 16)), texture(images, 3, 64))
        assert model.bank.numel() * 4 <= 1 << 16
        sizes.append(len(model.bank))
    assert min(sizes) > 0.5 * max(sizes)


def test_what_was_seen_scores_below_what_was_not() -> None:
    x = texture(6, 3, 64)
    model = fitted(PatchMemory(3, 1, PatchMemoryConfig()), x)
    smoother = smoothed(texture(3, 1, 64, 7)[:, 0], 2.0)[None] * 3  # another texture, same colours
    assert model.score_map(smoother).mean() > 1.5 * model.score_map(x).mean()


def test_a_map_is_searched_for_in_one_piece_of_memory() -> None:
    x = texture(4, 3, 64)
    search = 1 << 18
    model = fitted(PatchMemory(3, 1, PatchMemoryConfig(bank_bytes=1 << 15, search_bytes=search)), x)
    row = 4 * len(model.bank)
    assert len(x[0, 0].flatten()) // 4 * row > 2 * search  # so that it is searched for in parts
    with HeldBytes(x) as held:
        model.score_map(x[:1])
    assert [piece for piece in held.pieces if piece > 0.9 * search] == [search // row * row]


def test_any_callable_can_give_the_features() -> None:
    class Means:
        channels, stride_px, reach_px = 2, 4, 4

        def __call__(self, x_BCHW: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.avg_pool2d(x_BCHW, 4)

    x = texture(4, 2, 32) * 0.1
    model = fitted(PatchMemory(2, 1, PatchMemoryConfig(), Means()), x)
    odd = x[:1].clone()
    odd[0, :, 8:16, 8:16] = 5
    assert int(model.score_map(odd)[0].argmax()) // 32 in range(6, 18)


@pytest.mark.parametrize("sigma", [0.0, 0.7, 3.0])
def test_smoothing_changes_no_flat_map(sigma: float) -> None:
    flat = torch.full((2, 9, 7), 1.5)
    assert torch.allclose(smoothed(flat, sigma), flat)


def test_recomputing_changes_no_gradient() -> None:
    grads = []
    for recompute in (0, 2):
        torch.manual_seed(0)
        model = Autoencoder(3, 1, AutoencoderConfig(width=4, depth=2, latent=4))
        model.recompute = recompute
        x = texture(4, 3, 16)
        ((model(x) - x) ** 2).sum().backward()
        grads.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-6) for a, b in zip(*grads, strict=True))


@pytest.mark.parametrize(
    ("key", "config"),
    [
        ("guard_px", {"guard_px": 4}),
        ("outer_px", {"outer_px": 10}),
        ("outer_px", {"guard_px": 25, "outer_px": 25}),
        ("outer_px", {"guard_px": 27}),
    ],
)
def test_squares_that_leave_no_ring_are_refused_by_name(key: str, config: dict[str, int]) -> None:
    with pytest.raises(UsageError, match=f"“{key}” is wrong"):
        RxConfig.make(config, "model.rx")

"""What of a sequence's steps or a graph's nodes and edges spoke for a score: integrated gradients.

Sundararajan, Taly and Yan, ICML 2017, from a sample whose features are all 0: the mean of every number, and
none of any kind. The sums over all places make up the difference that the whole sample makes; how far they
miss it is told. captum's has one axis of samples, which nodes of a graph are not; for sequences both give the
same. Legend: T steps, N nodes, E edges, F and D features, K outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from caudal.core.seeds import generator
from caudal.models.ragged import Graphs, Sequences

Values = npt.NDArray[np.float64]
Score = Callable[[torch.Tensor], torch.Tensor]
"""From a model's output (1, K) to the number that is explained (1,)."""

STEPS = (64, 256, 1024)
"""On the way from an empty sample; more where fewer miss too much."""
_ENOUGH = 0.02
_AWAY = 0.1  # share of the places that are taken away to see whether they mattered
_DRAWS = 8


@dataclass(frozen=True)
class Places:
    """`steps_or_nodes` (T,) or (N,) and `edges` (E,), in units of the score: above 0 speaks for it.

    `score` is that of the sample, `empty` that of one without features. `missed` is the share of their
    difference that the places do not make up. `fall` is how much the score falls without a tenth of the
    places, those that speak most for it, and `fall_by_chance` without places drawn at random.
    """

    steps_or_nodes: Values
    edges: Values
    score: float
    empty: float
    missed: float
    fall: float
    fall_by_chance: float


def explain_places(
    model: nn.Module,
    sample: Sequences | Graphs,
    score: Score,
    seed: int = 0,
    steps: tuple[int, ...] = STEPS,
) -> Places:
    """Which places of one sample spoke for `score`; `model` is in evaluation mode.

    `steps` are tried one after the other until little is missed.
    """
    assert not model.training
    x, attr = _features(sample)
    with torch.no_grad():
        whole = float(score(model(sample)))
        empty = float(score(model(_with(sample, x * 0, None if attr is None else attr * 0))))
    for count in steps:
        values, edges = _integrated(model, sample, score, count)
        missed = abs(values.sum() + edges.sum() - (whole - empty)) / max(abs(whole - empty), 1e-6)
        if missed < _ENOUGH:
            break

    def fall_without(places: npt.NDArray[np.int64]) -> float:
        less = x.clone()
        less[torch.from_numpy(places).to(x.device)] = 0
        with torch.no_grad():
            return whole - float(score(model(_with(sample, less, attr))))

    count = max(1, round(_AWAY * len(values)))
    draw = generator(seed, "places")
    by_chance = [fall_without(draw.permutation(len(values))[:count]) for _one in range(_DRAWS)]
    fall = fall_without(np.argsort(-values, kind="stable")[:count])
    return Places(values, edges, whole, empty, float(missed), fall, float(np.mean(by_chance)))


def _integrated(
    model: nn.Module, sample: Sequences | Graphs, score: Score, steps: int
) -> tuple[Values, Values]:
    """Of each place, and of each edge, the mean gradient on the way to it, times its features."""
    x, attr = _features(sample)
    sums, attr_sums = torch.zeros_like(x), None if attr is None else torch.zeros_like(attr)
    with torch.inference_mode(False), torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
        for k in range(steps):
            # Close together where the sample is nearly empty: there a normalization turns fastest.
            along = (k + 0.5) / steps
            share, weight = along**3, 3 * along**2 / steps
            at = (x * share).requires_grad_()
            attr_at = None if attr is None else (attr * share).requires_grad_()
            wanted = [at] if attr_at is None else [at, attr_at]
            found = torch.autograd.grad(
                score(model(_with(sample, at, attr_at))).sum(), wanted, allow_unused=True
            )
            if found[0] is not None:
                sums += weight * found[0]
            if attr_sums is not None and found[1] is not None:
                attr_sums += weight * found[1]
    edges = np.zeros(0) if attr is None or attr_sums is None else _by_place(attr_sums * attr)
    return _by_place(sums * torch.nan_to_num(x)), edges


def _features(sample: Sequences | Graphs) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Features by place (T or N, F), and those of edges (E, D)."""
    if isinstance(sample, Sequences):
        assert len(sample.x_BTF) == 1
        return sample.x_BTF[0].detach().clone(), None
    assert sample.count == 1
    attr = None if sample.attr_ED is None else torch.nan_to_num(sample.attr_ED.detach().clone())
    return sample.x_NF.detach().clone(), attr


def _with(sample: Sequences | Graphs, x: torch.Tensor, attr: torch.Tensor | None) -> Sequences | Graphs:
    if isinstance(sample, Sequences):
        return replace(sample, x_BTF=x[None])
    return replace(sample, x_NF=x, attr_ED=attr)


def _by_place(values: torch.Tensor) -> Values:
    return np.asarray(torch.nan_to_num(values).sum(-1).double().cpu().numpy())

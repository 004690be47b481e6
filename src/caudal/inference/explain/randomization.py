"""Whether a map depends on what was learned: the model-randomization check.

Adebayo et al., “Sanity checks for saliency maps”, NeurIPS 2018. Layers become random one after another, from
the top of the network down, and the map is made again each time. A map that stays alike shows the picture's
edges, not the model's reasons. Legend: B images, C bands, H rows, W columns.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from caudal.core.seeds import integer
from caudal.inference.explain.explanation import Map, Randomization, Stage
from caudal.inference.explain.target import padded


def randomize(
    model: nn.Module,
    x_CHW: torch.Tensor,
    make_map: Callable[[nn.Module], Map],
    *,
    stages: int = 4,
    draws: int = 3,
    seed: int = 0,
) -> Randomization:
    """How alike `make_map(model)` stays as more and more of the model is random.

    The first stage is the top layer alone, the last one every layer; `stages` in all, or as many as there
    are layers. Correlations are means over `draws`, with their signs. `model` stays as it is; a copy of it is
    held meanwhile.
    """
    map_HW = make_map(model)
    names = _top_down(model, x_CHW)
    groups = [names[:1], *(part.tolist() for part in np.array_split(names[1:], max(1, stages - 1)))]
    groups = [group for group in groups if group]
    found = np.zeros((draws, len(groups)))
    for draw in range(draws):
        noise = torch.Generator().manual_seed(integer(seed, "explain randomization", draw))
        spoiled = copy.deepcopy(model)
        for k, group in enumerate(groups):
            for name in group:
                _spoil(spoiled.get_submodule(name), noise)
            found[draw, k] = rank_correlation(map_HW, make_map(spoiled))
    means = found.mean(0)
    return Randomization(
        tuple(Stage(group[-1], float(mean)) for group, mean in zip(groups, means, strict=True))
    )


def rank_correlation(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    """Spearman's correlation of two arrays of one shape; equal values share the mean of their ranks.

    0 where one of them is the same everywhere or holds a number that is not finite: it says nothing then.
    """
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return 0.0
    first, second = (ranks - ranks.mean() for ranks in (_mean_ranks(a), _mean_ranks(b)))
    size = float(np.sqrt((first @ first) * (second @ second)))
    return float(first @ second) / size if size else 0.0


def _mean_ranks(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    _unique, inverse, counts = np.unique(values.ravel(), return_inverse=True, return_counts=True)
    ranks: npt.NDArray[np.float64] = (counts.cumsum() - (counts - 1) / 2)[inverse]
    return ranks


@torch.no_grad()
def _top_down(model: nn.Module, x_CHW: torch.Tensor) -> list[str]:
    """Modules with parameters of their own, the one that runs last first."""
    order: dict[str, None] = {}
    hooks = [
        # Before it runs: a parent with parameters comes below its children.
        module.register_forward_pre_hook(lambda _module, _args, name=name: order.setdefault(name))
        for name, module in model.named_modules()
        if any(True for _parameter in module.parameters(recurse=False))
    ]
    try:
        model(padded(model, x_CHW[None]))
    finally:
        for hook in hooks:
            hook.remove()
    return list(order)[::-1]


@torch.no_grad()
def _spoil(module: nn.Module, noise: torch.Generator) -> None:
    """Random weights of the size that the trained ones have, so that no activation dies or explodes.

    Weights come from a normal distribution with their root mean square; one-dimensional parameters (biases,
    scales of a normalization) change places.
    """
    for parameter in module.parameters(recurse=False):
        if parameter.dim() > 1:
            size = parameter.float().square().mean().sqrt().cpu()
            drawn = torch.randn(parameter.shape, generator=noise) * size
        else:
            drawn = parameter.cpu()[torch.randperm(parameter.numel(), generator=noise)]
        # Not in place: weights may be mapped from a file.
        parameter.data = drawn.to(device=parameter.device, dtype=parameter.dtype)

"""The whole of it: one image, one class, several methods, and every check of each of their maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import nn

from caudal.inference.explain.energy import energy
from caudal.inference.explain.explanation import Explanation, Map
from caudal.inference.explain.faithfulness import Direction, curve, random_area
from caudal.inference.explain.layers import explained_layer
from caudal.inference.explain.methods import Effort, attribute, checked, looks_at_a_layer
from caudal.inference.explain.randomization import randomize
from caudal.inference.explain.target import Mask, Target, TargetScore, check_mask

DEFAULT_METHODS = ("hirescam", "integrated_gradients")
"""Grad-CAM may point at places that the model did not use; HiResCAM does not, under a linear head."""


@dataclass(frozen=True, slots=True)
class Checks:
    """How thoroughly maps are checked: points of a curve, maps of noise beside them, random networks.

    Randomization makes a map anew `stages` × `draws` times; 0 stages leave it out, 0 points the curves. These
    maps, and the one that they are compared with, take no more than `steps` and `cells` (see `Effort`): ranks
    need no more, and they are most of the work.
    """

    points: int = 32
    random_maps: int = 3
    stages: int = 4
    draws: int = 3
    steps: int = 8
    cells: int = 4


@dataclass(frozen=True, slots=True)
class Looks:
    """What to explain with: methods, the layer for class activation maps, and how much work to do."""

    methods: Sequence[str] = DEFAULT_METHODS
    layer: str | None = None
    effort: Effort = field(default_factory=Effort)
    checks: Checks = field(default_factory=Checks)


@torch.inference_mode(False)
def explain(
    model: nn.Module,
    x_CHW: torch.Tensor,
    target: Target,
    looks: Looks | None = None,
    *,
    lesion_HW: Mask | None = None,
    seed: int = 0,
) -> tuple[Explanation, ...]:
    """Why `model`, in evaluation mode, gave `x_CHW` its score for `target` (from `choose_target`).

    `x_CHW` is float32, normalized as in training, of any size, on the model's device. `lesion_HW` is
    where the reason should be, for the energy. One explanation for each method, in their order.

    Raises:
        UsageError: an unknown method or layer, a mask that does not fit, or captum is missing.
        BadModel: a layer without a picture of features, or scores that are none of classes.
    """
    assert not model.training
    looks, x_CHW = looks or Looks(), x_CHW.detach().clone()
    for method in looks.methods:
        checked(method)
    if lesion_HW is not None:
        check_mask(lesion_HW, *x_CHW.shape[1:])
    needs_layer = any(looks_at_a_layer(method) for method in looks.methods)
    layer = explained_layer(model, x_CHW, looks.layer) if needs_layer else ""
    score = TargetScore(model, target)
    probability = float(score.probability(x_CHW[None]))
    checks, effort, batch = looks.checks, looks.effort, looks.effort.batch
    coarse = replace(effort, steps=min(effort.steps, checks.steps), cells=min(effort.cells, checks.cells))
    by_chance: dict[Direction, float] = {}
    if checks.points:
        for direction in ("deletion", "insertion"):
            by_chance[direction] = random_area(
                score,
                x_CHW,
                direction,
                points=checks.points,
                batch=batch,
                draws=checks.random_maps,
                seed=seed,
            )

    def one(method: str) -> Explanation:
        at = layer if looks_at_a_layer(method) else ""

        def make_map(some: nn.Module, effort: Effort = coarse) -> Map:
            return attribute(method, TargetScore(some, target), x_CHW, at, effort)

        map_HW = make_map(model, looks.effort)
        drawn = partial(curve, score, x_CHW, map_HW, points=checks.points, batch=batch, seed=seed)
        return Explanation(
            map_HW=map_HW,
            method=method,
            layer=at,
            target=target.index,
            probability=probability,
            deletion=drawn("deletion", random_area=by_chance["deletion"]) if checks.points else None,
            insertion=drawn("insertion", random_area=by_chance["insertion"]) if checks.points else None,
            randomization=randomize(
                model, x_CHW, make_map, stages=checks.stages, draws=checks.draws, seed=seed
            )
            if checks.stages
            else None,
            energy=None if lesion_HW is None else energy(map_HW, lesion_HW),
        )

    return tuple(one(method) for method in looks.methods)

"""Maps of what mattered, made by captum: Grad-CAM, HiResCAM, integrated gradients, occlusion.

Each takes one image and gives one value a pixel, with its sign: what speaks for the class is positive. Memory
is that of `batch` images in the model, with its gradients. Legend: B images, C bands or channels, H rows,
W columns.

Grad-CAM: Selvaraju et al., ICCV 2017. HiResCAM: Draelos and Carin, 2020 (arXiv:2011.08891). Integrated
gradients: Sundararajan, Taly and Yan, ICML 2017. Occlusion: Zeiler and Fergus, ECCV 2014.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from caudal.core.errors import BadModel, UsageError
from caudal.core.messages import _
from caudal.inference.explain.baselines import Baseline, baseline
from caudal.inference.explain.explanation import Map
from caudal.inference.explain.target import TargetScore, padding
from caudal.models.explained import as_map

_MOST_EXTRA_TOKENS = 8  # a class token, a distillation token, registers


@dataclass(frozen=True, slots=True)
class Effort:
    """How finely to look. `batch` bounds the memory, all else the time.

    `steps` along the path of integrated gradients; occlusion covers 1/`cells` of each side at once and moves
    by half of that; `baseline` is what both of them put in place of the image.
    """

    batch: int = 8
    steps: int = 32
    cells: int = 6
    baseline: Baseline = "zero"


def attribute(method: str, score: TargetScore, x_CHW: torch.Tensor, layer: str, effort: Effort) -> Map:
    """The map (H, W), float32, of one image.

    Raises:
        UsageError: no such method, or captum is not installed.
        BadModel: `layer` gives no picture of features.
    """
    make = _METHODS[checked(method)]
    with torch.inference_mode(False), torch.enable_grad():
        # A leaf of its own: captum warns of, and sets, a flag on tensors that need no gradient.
        x_BCHW = x_CHW.detach().clone()[None].requires_grad_()
        map_HW = make(score, x_BCHW, layer, effort)
    found: Map = map_HW.detach().float().cpu().numpy()
    return np.ascontiguousarray(found)


def checked(method: str) -> str:
    """`method`, if there is one of that name.

    Raises:
        UsageError: there is none.
    """
    if method not in _METHODS:
        raise UsageError(
            _("There is no method “{name}” to explain with.").format(name=method),
            _("Choose one of: {names}.").format(names=", ".join(_METHODS)),
        )
    return method


def looks_at_a_layer(method: str) -> bool:
    """Whether a method takes its map from a layer and not from the input."""
    return method in ("gradcam", "hirescam")


def captum() -> Any:
    """The part of captum that is used; it brings matplotlib along, about 40 MiB and 2 seconds.

    Raises:
        UsageError: it is not installed.
    """
    try:
        return importlib.import_module("captum.attr")
    except ImportError:
        raise UsageError(
            _("Explanations need captum, which is not installed."),
            _("Install it: pip install 'caudal[explain]'."),
        ) from None


def _gradcam(score: TargetScore, x_BCHW: torch.Tensor, layer: str, _effort: Effort) -> torch.Tensor:
    attr, module = captum(), score.model.get_submodule(layer)
    values = attr.LayerGradCam(score, module).attribute(x_BCHW)
    if isinstance(values, torch.Tensor) and values.dim() == 3:
        # Captum takes the second dimension for channels; in tokens it is the place.
        gradients = attr.LayerGradientXActivation(score, module, multiply_by_inputs=False).attribute(x_BCHW)
        activations = attr.LayerActivation(score, module).attribute(x_BCHW)
        weights_BC11 = _picture(gradients, x_BCHW, layer).mean((2, 3), keepdim=True)
        values = (weights_BC11 * _picture(activations, x_BCHW, layer)).sum(1, keepdim=True)
    return _spread(_picture(values, x_BCHW, layer), score.model, x_BCHW)


def _hirescam(score: TargetScore, x_BCHW: torch.Tensor, layer: str, _effort: Effort) -> torch.Tensor:
    # Gradient times activation at each place, summed over channels: Grad-CAM without its mean of gradients.
    module = score.model.get_submodule(layer)
    values = captum().LayerGradientXActivation(score, module).attribute(x_BCHW)
    return _spread(_picture(values, x_BCHW, layer).sum(1, keepdim=True), score.model, x_BCHW)


def _picture(values: Any, x_BCHW: torch.Tensor, layer: str) -> torch.Tensor:
    """What belongs to a layer's output as a picture (B, C, h, w), if it is one or made of tokens.

    Raises:
        BadModel: it is neither.
    """
    if isinstance(values, torch.Tensor) and values.dim() == 4:
        return values
    if isinstance(values, torch.Tensor) and values.dim() == 3:
        picture = as_map(values, x_BCHW.shape[2:])
        if 0 <= values.shape[1] - picture.shape[2] * picture.shape[3] <= _MOST_EXTRA_TOKENS:
            return picture
    raise BadModel(
        _("The layer “{name}” gives no picture of features.").format(name=layer),
        _("Name another layer, or use integrated_gradients or occlusion."),
    )


def _spread(values_B1hw: torch.Tensor, model: nn.Module, x_BCHW: torch.Tensor) -> torch.Tensor:
    """A layer's map over the pixels of the input."""
    height, width = x_BCHW.shape[2:]
    below, right = padding(model, height, width)
    size = (height + below, width + right)
    whole = F.interpolate(values_B1hw, size, mode="bilinear", align_corners=False)
    return whole[0, 0, :height, :width]


def _integrated_gradients(
    score: TargetScore, x_BCHW: torch.Tensor, _layer: str, effort: Effort
) -> torch.Tensor:
    values_BCHW: torch.Tensor = (
        captum()
        .IntegratedGradients(score)
        .attribute(
            x_BCHW,
            baselines=baseline(x_BCHW[0].detach(), effort.baseline)[None],
            n_steps=effort.steps,
            internal_batch_size=effort.batch,
        )
    )
    return values_BCHW[0].sum(0)


def _occlusion(score: TargetScore, x_BCHW: torch.Tensor, _layer: str, effort: Effort) -> torch.Tensor:
    _b, bands, height, width = x_BCHW.shape
    high, wide = (math.ceil(side / effort.cells) for side in (height, width))
    with torch.no_grad():
        values_BCHW: torch.Tensor = (
            captum()
            .Occlusion(score)
            .attribute(
                x_BCHW.detach(),
                sliding_window_shapes=(bands, high, wide),
                strides=(bands, math.ceil(high / 2), math.ceil(wide / 2)),
                baselines=baseline(x_BCHW[0].detach(), effort.baseline)[None],
                perturbations_per_eval=effort.batch,
            )
        )
    # All bands are covered together, so each holds the same values.
    return values_BCHW[0, 0]


_METHODS: dict[str, Callable[[TargetScore, torch.Tensor, str, Effort], torch.Tensor]] = {
    "gradcam": _gradcam,
    "hirescam": _hirescam,
    "integrated_gradients": _integrated_gradients,
    "occlusion": _occlusion,
}
METHODS = tuple(_METHODS)

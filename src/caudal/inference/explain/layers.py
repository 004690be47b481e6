"""Which layer a class activation map is taken from: the user's, the model's own, or the last that can."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import nn

from caudal.core.errors import BadModel, UsageError
from caudal.core.messages import _
from caudal.inference.explain.target import padded

_MOST_NAMED = 12


def explained_layer(model: nn.Module, x_CHW: torch.Tensor, wanted: str | None = None) -> str:
    """The dotted name of the module whose output is explained.

    `wanted`, where given. Else what the model says by its attribute `explained_layer` (a module of it, or its
    name); else the coarsest of its `down` blocks, which is what an encoder with skips has; else the last
    module that gives a picture of features (B, C, h, w) which is larger than a pixel and not yet the scores.

    Raises:
        UsageError: no module is called `wanted`.
        BadModel: no module gives such a picture.
    """
    names = [name for name, _module in model.named_modules() if name]
    if wanted is not None:
        if wanted not in names:
            last = ", ".join(names[-_MOST_NAMED:])
            raise UsageError(
                _("The model has no layer “{name}”.").format(name=wanted),
                _("Its last layers are: {names}.").format(names=last),
            )
        return wanted
    own: Any = getattr(model, "explained_layer", None)
    if isinstance(own, str):
        assert own in names, own
        return str(own)
    if isinstance(own, nn.Module):
        found: str = next(name for name, module in model.named_modules() if module is own)
        return found
    down = getattr(model, "down", None)
    if isinstance(down, nn.ModuleList):
        return f"down.{len(down) - 1}"
    return _last_picture(model, x_CHW)


@torch.no_grad()
def _last_picture(model: nn.Module, x_CHW: torch.Tensor) -> str:
    """The last module, as the model runs, whose output is a picture of features."""
    found: list[tuple[str, weakref.ref[torch.Tensor]]] = []

    def watch(name: str) -> Any:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            if isinstance(output, torch.Tensor) and output.dim() == 4 and max(output.shape[2:]) > 1:
                found.append((name, weakref.ref(output)))

        return hook

    hooks = [module.register_forward_hook(watch(name)) for name, module in model.named_modules() if name]
    try:
        scores = model(padded(model, x_CHW[None]))
    finally:
        for hook in hooks:
            hook.remove()
    names = [name for name, output in found if output() is not scores]
    if not names:
        raise BadModel(
            _("No layer of the model gives a picture of features, which Grad-CAM and HiResCAM need."),
            _("Use integrated_gradients or occlusion."),
        )
    return names[-1]

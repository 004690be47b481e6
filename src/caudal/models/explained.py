"""Which layer of a network to explain: the last that still is a map and on which the scores depend as one.

Of a convolutional network that is the last map; of a transformer that reads its scores from one token, the
normalization before the last attention, behind which the other tokens no longer matter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn


def last_map(model: nn.Module, x_BCHW: torch.Tensor) -> str:
    """The name of that module, found by one pass forward and one back on an image like `x_BCHW` (B = 1)."""
    seen: list[tuple[str, torch.Tensor]] = []
    hooks = []

    def keep(name: str) -> None:
        def hook(_module: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, torch.Tensor) and output.requires_grad and _is_map(output):
                seen.append((name, output))

        hooks.append(model.get_submodule(name).register_forward_hook(hook))

    for name, module in model.named_modules():
        if name and (list(module.children()) == [] or isinstance(module, nn.Sequential)):
            keep(name)
    was_training = model.training
    model.eval()
    try:
        with torch.enable_grad():
            # Noise: on an even image all places would be alike.
            noise = torch.randn(x_BCHW.shape, generator=torch.Generator().manual_seed(0))
            scores = model(noise.to(x_BCHW))
            found = torch.autograd.grad(
                scores[:, -1].sum(), [output for _name, output in seen], allow_unused=True
            )
    finally:
        for hook in hooks:
            hook.remove()
        model.train(was_training)
    return next(
        name
        for (name, output), gradient in zip(reversed(seen), reversed(found), strict=True)
        if gradient is not None and (output.ndim == 4 or _many_tokens(gradient))
    )


def as_map(output: torch.Tensor, size_px: Sequence[int]) -> torch.Tensor:
    """Tokens `(B, T, C)` of an image of `size_px` as a map `(B, C, h, w)`; a map as it is.

    Tokens before those of the image (a class token, registers) are left out.
    """
    if output.ndim == 4:
        return output
    tokens = output.shape[1]
    high = max(1, math.isqrt(tokens * size_px[0] // size_px[1]))
    wide = max(1, high * size_px[1] // size_px[0])
    image_BTC = output[:, tokens - high * wide :]
    return image_BTC.transpose(1, 2).reshape(len(output), -1, high, wide)


def _is_map(output: torch.Tensor) -> bool:
    if output.ndim == 4:
        return output.shape[2] * output.shape[3] > 1
    return output.ndim == 3 and output.shape[1] > 1


def _many_tokens(gradient: torch.Tensor) -> bool:
    return int((gradient.abs().amax((0, 2)) > 0).sum()) > 1

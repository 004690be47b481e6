"""A running average of the weights: better than the last step's (Polyak and Juditsky, 1992)."""

from __future__ import annotations

import copy

import torch
from torch import nn


class Average:
    """Exponential average over about `steps` steps; shorter at the beginning, so it is never stale."""

    def __init__(self, model: nn.Module, steps: int) -> None:
        self._steps = steps
        self.model = copy.deepcopy(model).eval().requires_grad_(False) if steps else model

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take the weights after `step` (counted from 0); buffers are averaged too."""
        if not self._steps:
            return
        share = max(1 / self._steps, 1 / (1 + step / 2))
        for mean, now in zip(self.model.state_dict().values(), model.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(now, share)
            else:
                mean.copy_(now)

"""AdamW (Loshchilov and Hutter, ICLR 2019) over torch's own fused kernel.

`torch.optim.AdamW` calls the same kernel, but its first step loads torch's compiler: 75 MB and seconds
that a run without a compiler never uses. Gradient scalers take this class as they take that one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn


class AdamW:
    """Steps over `weights`; two numbers of state a weight, laid out in memory as the weights are.

    `param_groups` holds the one group whose `lr` is the rate of the next step.
    """

    def __init__(
        self,
        weights: Iterable[nn.Parameter],
        lr: float,
        weight_decay: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        self._weights = list(weights)
        self.param_groups: list[dict[str, Any]] = [{"params": self._weights, "lr": lr}]
        self._decay, self._betas, self._eps = weight_decay, betas, eps
        self._steps = [torch.zeros((), device=w.device) for w in self._weights]
        self._means = [torch.zeros_like(w, requires_grad=False) for w in self._weights]
        self._squares = [torch.zeros_like(w, requires_grad=False) for w in self._weights]

    @torch.no_grad()
    def step(self) -> None:
        """Update every weight that has a gradient."""
        rows = [
            (w, w.grad, m, s, t)
            for w, m, s, t in zip(self._weights, self._means, self._squares, self._steps, strict=True)
            if w.grad is not None
        ]
        if not rows:
            return
        weights, gradients, means, squares, steps = (list(column) for column in zip(*rows, strict=True))
        torch._foreach_add_(steps, 1)
        torch._fused_adamw_(
            weights, gradients, means, squares, [], steps,
            lr=self.param_groups[0]["lr"], beta1=self._betas[0], beta2=self._betas[1],
            weight_decay=self._decay, eps=self._eps, amsgrad=False, maximize=False,
        )  # fmt: skip

    def zero_grad(self) -> None:
        """Let go of the gradients."""
        for weight in self._weights:
            weight.grad = None

    def tensors(self) -> dict[str, torch.Tensor]:
        """The state by name: the tensors themselves, which may be copied into."""
        kinds = (("mean", self._means), ("square", self._squares), ("step", self._steps))
        return {f"{k}.{name}": value for name, values in kinds for k, value in enumerate(values)}

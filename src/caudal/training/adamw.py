"""AdamW (Loshchilov and Hutter, ICLR 2019) over torch's own fused kernel.

`torch.optim.AdamW` calls the same kernel, but its first step loads torch's compiler: 75 MB and seconds
that a run without a compiler never uses. Gradient scalers take this class as they take that one.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from caudal.training.state_elsewhere import StateElsewhere, shares


class AdamW:
    """Steps over `weights`; two numbers of state a weight, laid out in memory as the weights are.

    With `elsewhere` the state lies in a file in that folder, or in the host's memory beside a device; the
    numbers are the same. Those of `slower` learn at the share `slower_rate` of the rate. `param_groups` are
    both, each with the `lr` of the next step and its `share` of the rate.
    """

    def __init__(
        self,
        weights: Iterable[nn.Parameter],
        lr: float,
        weight_decay: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        slower: Iterable[nn.Parameter] = (),
        slower_rate: float = 1.0,
        elsewhere: Path | None = None,
    ) -> None:
        self._weights = list(weights)
        late = {id(w) for w in slower}
        shares = [(1.0, [w for w in self._weights if id(w) not in late])]
        if late:
            shares.append((slower_rate, [w for w in self._weights if id(w) in late]))
        self.param_groups: list[dict[str, Any]] = [
            {"params": params, "lr": lr * share, "share": share} for share, params in shares
        ]
        self._decay, self._betas, self._eps = weight_decay, betas, eps
        self._steps = [torch.zeros((), device=w.device) for w in self._weights]
        self._elsewhere = StateElsewhere(self._weights, elsewhere) if elsewhere else None
        if self._elsewhere is not None:
            self._means, self._squares = self._elsewhere.means, self._elsewhere.squares
        else:
            self._means = [torch.zeros_like(w, requires_grad=False) for w in self._weights]
            self._squares = [torch.zeros_like(w, requires_grad=False) for w in self._weights]
        self._number = {id(w): k for k, w in enumerate(self._weights)}

    def set_rate(self, rate: float) -> None:
        """Take the next steps at `rate`, each group at its share of it."""
        for group in self.param_groups:
            group["lr"] = rate * group["share"]

    @torch.no_grad()
    def step(self) -> None:
        """Update every weight that has a gradient."""
        for group in self.param_groups:
            numbers = [self._number[id(w)] for w in group["params"] if w.grad is not None]
            if not numbers:
                continue
            if self._elsewhere is None:
                means, squares = [self._means[k] for k in numbers], [self._squares[k] for k in numbers]
                self._update(numbers, means, squares, group["lr"])
                continue
            for share in shares([self._weights[k] for k in numbers]):
                chosen = [numbers[k] for k in share]
                with self._elsewhere.at_hand(chosen) as (means, squares):
                    self._update(chosen, means, squares, group["lr"])

    def _update(
        self, numbers: list[int], means: list[torch.Tensor], squares: list[torch.Tensor], rate: float
    ) -> None:
        weights: list[torch.Tensor] = [self._weights[k] for k in numbers]
        gradients = [w.grad for w in weights if w.grad is not None]
        steps = [self._steps[k] for k in numbers]
        torch._foreach_add_(steps, 1)
        torch._fused_adamw_(
            weights, gradients, means, squares, [], steps,
            lr=rate, beta1=self._betas[0], beta2=self._betas[1],
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

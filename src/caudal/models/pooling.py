"""Many steps to one: what a sequence's steps say together, whatever lies after its end.

Legend: B samples, T steps, C channels.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

Pooling = Literal["last", "mean", "max", "mean_max", "attention"]


class StepPool(nn.Module):
    """One vector out of the steps of a sequence.

    `last` step; `mean` of the steps; the largest of each channel (`max`); these two beside each other
    (`mean_max`); or by `attention` their mean with learned weights, as Bahdanau, Cho and Bengio (ICLR 2015),
    with one question for all sequences. `outputs` is the number of channels that come out.
    """

    def __init__(self, pooling: Pooling, width: int) -> None:
        super().__init__()
        self.pooling = pooling
        self.outputs = 2 * width if pooling == "mean_max" else width
        if pooling == "attention":
            self.key = nn.Linear(width, width)
            self.question = nn.Linear(width, 1, bias=False)

    def forward(self, x_BTC: torch.Tensor, known_BT: torch.Tensor) -> torch.Tensor:
        """One vector (B, outputs) for each sequence; every sequence has a known step."""
        if self.pooling == "last":
            last_B = known_BT.sum(1) - 1
            return x_BTC[torch.arange(len(x_BTC), device=x_BTC.device), last_B]
        if self.pooling == "attention":
            return (x_BTC * self.weights(x_BTC, known_BT)[:, :, None]).sum(1)
        pooled = []
        if "mean" in self.pooling:
            pooled.append((x_BTC * known_BT[:, :, None]).sum(1) / known_BT.sum(1, keepdim=True))
        if "max" in self.pooling:
            pooled.append(x_BTC.masked_fill(~known_BT[:, :, None], float("-inf")).amax(1))
        return torch.cat(pooled, 1)

    def weights(self, x_BTC: torch.Tensor, known_BT: torch.Tensor) -> torch.Tensor:
        """How much each step counts by `attention` (B, T): 0 after the end, 1 in all."""
        score_BT = self.question(torch.tanh(self.key(x_BTC))).squeeze(-1).float()
        share_BT: torch.Tensor = score_BT.masked_fill(~known_BT, float("-inf")).softmax(1)
        return share_BT

"""Temporal convolution: residual blocks of dilated convolutions (Bai, Kolter and Koltun, "An Empirical
Evaluation of Generic Convolutional and Recurrent Networks for Sequence Modeling", 2018).

Differs from the paper: normalized over the channels of a step, not by weights; no dropout, as its masks
would depend on how a batch is cut into micro-batches; and not causal unless asked. What lies after a
sequence's end is set to 0 before every convolution, so it is the zero padding that the sequence alone has.
Legend: B samples, T steps, C channels.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from caudal.core.config import Frozen
from caudal.models.pooling import Pooling, StepPool
from caudal.models.ragged import Sequences, filled
from caudal.models.recompute import again


class TemporalConfig(Frozen):
    """`depth` blocks of `width` channels; block i looks `kernel` steps wide, each 2^i apart.

    A `causal` network's output at a step depends on that step and those before. With `per_step` there is
    an output for every step, else one for the sequence, from its steps by `pooling`. `indicator` adds a
    feature for each that says where it was missing.
    """

    width: int = Field(32, ge=1, le=4096)
    depth: int = Field(4, ge=1, le=16)
    kernel: int = Field(9, ge=2, le=63)
    causal: bool = False
    pooling: Pooling = "mean_max"
    per_step: bool = False
    indicator: bool = False


class _Steps(nn.Module):
    """A convolution over steps that keeps their number."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, dilation: int, causal: bool) -> None:
        super().__init__()
        reach = (kernel - 1) * dilation
        self.before = reach if causal else reach // 2
        self.after = reach - self.before
        self.conv = nn.Conv1d(channels_in, channels_out, kernel, dilation=dilation)

    def forward(self, x_BTC: torch.Tensor, known_BT1: torch.Tensor) -> torch.Tensor:
        x_BCT = (x_BTC * known_BT1).transpose(1, 2)
        y_BCT: torch.Tensor = self.conv(F.pad(x_BCT, (self.before, self.after)))
        return y_BCT.transpose(1, 2)


class _Block(nn.Module):
    """Twice: normalization, GELU, convolution; added to what came in."""

    def __init__(self, width: int, kernel: int, dilation: int, causal: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.conv1 = _Steps(width, width, kernel, dilation, causal)
        self.conv2 = _Steps(width, width, kernel, dilation, causal)

    def forward(self, x_BTC: torch.Tensor, known_BT1: torch.Tensor) -> torch.Tensor:
        y_BTC = self.conv1(F.gelu(self.norm1(x_BTC)), known_BT1)
        y_BTC = self.conv2(F.gelu(self.norm2(y_BTC)), known_BT1)
        added: torch.Tensor = x_BTC + y_BTC
        return added


class Temporal(nn.Module):
    """Scores of `outputs` numbers for each sequence of `inputs` features, or for each of its steps."""

    Config: ClassVar[type[TemporalConfig]] = TemporalConfig
    recompute_levels: ClassVar[int] = 1
    """Its blocks are alike: all of them compute their activations again, or none."""

    def __init__(self, inputs: int, outputs: int, config: TemporalConfig) -> None:
        super().__init__()
        self.config, self.inputs, self.outputs = config, inputs, outputs
        self.recompute = 0
        channels = inputs * (2 if config.indicator else 1)
        self.first = _Steps(channels, config.width, config.kernel, 1, config.causal)
        self.blocks = nn.ModuleList(
            _Block(config.width, config.kernel, 2**level, config.causal) for level in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.width)
        self.pool = None if config.per_step else StepPool(config.pooling, config.width)
        self.head = nn.Linear(config.width if self.pool is None else self.pool.outputs, outputs)

    def forward(self, sequences: Sequences) -> torch.Tensor:
        """Scores (B, outputs); (B, T, outputs) with `per_step`: those after a sequence's end mean nothing."""
        known_BT = sequences.known()
        known_BT1 = known_BT[:, :, None]
        x_BTC = self.first(filled(sequences.x_BTF, self.config.indicator), known_BT1)
        for block in self.blocks:
            thrifty = self.training and self.recompute and torch.is_grad_enabled()
            x_BTC = again(block, x_BTC, known_BT1) if thrifty else block(x_BTC, known_BT1)
        x_BTC = self.norm(x_BTC)
        if self.pool is not None:
            x_BTC = self.pool(x_BTC, known_BT)
        scores: torch.Tensor = self.head(x_BTC)
        return scores

    @classmethod
    def from_shapes(cls, shapes: dict[str, tuple[int, ...]]) -> Temporal | None:
        """Always `None`: shapes do not tell whether there is an output for every step."""
        return None

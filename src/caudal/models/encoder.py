"""A small transformer encoder (Vaswani et al., NeurIPS 2017), normalized before each part (Xiong et al.,
ICML 2020), with sines for the places of steps: it takes sequences of any length.

No dropout: its masks would depend on how a batch is cut into micro-batches. Memory for attention grows with
the steps of the longest sequence. Legend: B samples, T steps, C channels.
"""

from __future__ import annotations

import math
from typing import ClassVar, Self, cast

import torch
from pydantic import Field, model_validator
from torch import nn

from caudal.core.config import Frozen
from caudal.models.pooling import Pooling, StepPool
from caudal.models.ragged import Sequences, filled
from caudal.models.recompute import again

_LONGEST_WAVE = 10_000.0


class EncoderConfig(Frozen):
    """`layers` of width `dim` with `heads` heads each; their inner layer is `expansion` times as wide.

    `kernel` steps are looked at together before the first layer. With `per_step` there is an output for
    every step, else one for the sequence, from its steps by `pooling`. `indicator` adds a feature for each
    that says where it was missing.
    """

    dim: int = Field(64, ge=2, le=4096, multiple_of=2)
    heads: int = Field(4, ge=1, le=64)
    layers: int = Field(3, ge=1, le=48)
    expansion: int = Field(2, ge=1, le=8)
    kernel: int = Field(5, ge=1, le=63)
    pooling: Pooling = "mean"
    per_step: bool = False
    indicator: bool = False

    @model_validator(mode="after")
    def _heads_share_evenly(self) -> Self:
        if self.dim % self.heads:
            raise ValueError(f"dim ({self.dim}) is no multiple of heads ({self.heads})")
        return self


class Encoder(nn.Module):
    """Scores of `outputs` numbers for each sequence of `inputs` features, or for each of its steps."""

    Config: ClassVar[type[EncoderConfig]] = EncoderConfig
    recompute_levels: ClassVar[int] = 1
    """Its layers are alike: all of them compute their activations again, or none."""

    def __init__(self, inputs: int, outputs: int, config: EncoderConfig) -> None:
        super().__init__()
        self.config, self.inputs, self.outputs = config, inputs, outputs
        self.recompute = 0
        channels = inputs * (2 if config.indicator else 1)
        self.first = nn.Conv1d(channels, config.dim, config.kernel, padding="same")
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                config.dim,
                config.heads,
                config.dim * config.expansion,
                dropout=0.0,
                activation="gelu",
                batch_first=True,
                norm_first=True,
            )
            for _layer in range(config.layers)
        )
        self.norm = nn.LayerNorm(config.dim)
        self.pool = None if config.per_step else StepPool(config.pooling, config.dim)
        self.head = nn.Linear(config.dim if self.pool is None else self.pool.outputs, outputs)

    def forward(self, sequences: Sequences) -> torch.Tensor:
        """Scores (B, outputs); (B, T, outputs) with `per_step`: those after a sequence's end mean nothing."""
        known_BT = sequences.known()
        x_BTF = filled(sequences.x_BTF, self.config.indicator) * known_BT[:, :, None]
        x_BTC = self.first(x_BTF.transpose(1, 2)).transpose(1, 2)
        x_BTC = x_BTC + places(x_BTC.shape[1], self.config.dim, x_BTC.device).to(x_BTC.dtype)
        for layer in self.layers:
            x_BTC = self._through(layer, x_BTC, ~known_BT)
        x_BTC = self.norm(x_BTC)
        if self.pool is not None:
            x_BTC = self.pool(x_BTC, known_BT)
        scores: torch.Tensor = self.head(x_BTC)
        return scores

    def _through(self, layer: nn.Module, x_BTC: torch.Tensor, padding_BT: torch.Tensor) -> torch.Tensor:
        def run(x_BTC: torch.Tensor, padding_BT: torch.Tensor) -> torch.Tensor:
            y_BTC: torch.Tensor = layer(x_BTC, src_key_padding_mask=padding_BT)
            return y_BTC

        if self.training and self.recompute and torch.is_grad_enabled():
            return cast(torch.Tensor, again(run, x_BTC, padding_BT, weights=layer.parameters()))
        return run(x_BTC, padding_BT)

    @classmethod
    def from_shapes(cls, shapes: dict[str, tuple[int, ...]]) -> Encoder | None:
        """Always `None`: shapes do not tell how many heads there are."""
        return None


def places(steps: int, dim: int, device: torch.device) -> torch.Tensor:
    """The place of each step in sines and cosines of `dim` / 2 wavelengths, (T, C) float32."""
    step_T1 = torch.arange(steps, device=device, dtype=torch.float32)[:, None]
    rate_H = torch.exp(torch.arange(0, dim, 2, device=device) * (-math.log(_LONGEST_WAVE) / dim))
    return torch.cat([torch.sin(step_T1 * rate_H), torch.cos(step_T1 * rate_H)], 1)

"""A convolutional autoencoder: learns to give normal patches back through a narrow middle.

What it cannot give back is what it has not seen; the map is its squared error over the bands. No skip
connections: they would let anomalies through. Legend: B batch, C channel, H row, W column.
"""

from __future__ import annotations

from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from caudal.core.config import Frozen
from caudal.models.anomaly_map import reach_px, smoothed
from caudal.models.norm import GroupedBatchNorm2d
from caudal.models.recompute import again


class AutoencoderConfig(Frozen):
    """`width` channels after the first of `depth` halvings, doubled at each further one; `latent` channels in
    the middle. `group`: samples over which batch statistics are taken. `smooth_px` is the deviation of the
    Gaussian over the map.
    """  # fmt: skip

    width: int = Field(16, ge=1, le=512)
    depth: int = Field(3, ge=1, le=6)
    latent: int = Field(8, ge=1, le=1024)
    group: int = Field(4, ge=1)
    smooth_px: float = Field(1.0, ge=0, le=20)


class _Layer(nn.Module):
    """3×3 convolution, normalization, ReLU; before it, nearest neighbours double the size if `up`."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, up: bool, group: int) -> None:
        super().__init__()
        self.up = up
        self.conv = nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False)
        self.norm = GroupedBatchNorm2d(channels_out, group)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        if self.up:
            x_BCHW = F.interpolate(x_BCHW, scale_factor=2, mode="nearest")
        return F.relu(self.norm(self.conv(x_BCHW)), inplace=True)


class Autoencoder(nn.Module):
    """Gives `bands` bands back; `outputs` is 1, the map."""

    Config: ClassVar[type[AutoencoderConfig]] = AutoencoderConfig

    def __init__(self, bands: int, outputs: int, config: AutoencoderConfig) -> None:
        super().__init__()
        assert outputs == 1
        self.config, self.bands, self.classes = config, bands, outputs
        self.recompute = 0
        """How many layers, from the finest on, compute their activations again instead of keeping them."""
        widths = [config.width * 2**level for level in range(config.depth)]
        ins, group = [bands, *widths[:-1]], config.group
        self.down = nn.ModuleList(_Layer(i, o, 2, False, group) for i, o in zip(ins, widths, strict=True))
        self.narrow = nn.Conv2d(widths[-1], config.latent, 1)
        self.widen = nn.Conv2d(config.latent, widths[-1], 1)
        outs = [widths[0], *widths[:-1]]
        self.up = nn.ModuleList(_Layer(i, o, 1, True, group) for i, o in zip(widths, outs, strict=True))
        self.head = nn.Conv2d(widths[0], bands, 3, padding=1)

    @property
    def recompute_levels(self) -> int:
        """The most that `recompute` can be."""
        return int(self.config.depth)

    @property
    def multiple_px(self) -> int:
        """Height and width of the input must be multiples of this."""
        return int(2**self.config.depth)

    @property
    def receptive_field_px(self) -> int:
        """How far from a pixel the input can still change its score."""
        # A 3×3 convolution at level l reaches 2^l px; halving and doubling only move within a cell of the
        # coarsest grid. The head is one more at the finest level.
        cell = 2**self.config.depth
        return int((cell - 1) + (cell - 1) + (cell - 1) + 1 + reach_px(self.config.smooth_px))

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """The reconstruction, shaped as the input; H and W multiples of `multiple_px`."""
        y_BCHW = x_BCHW
        for level, layer in enumerate(self.down):
            y_BCHW = self._through(layer, level, y_BCHW)
        y_BCHW = F.relu(self.widen(self.narrow(y_BCHW)))
        for level in reversed(range(self.config.depth)):
            y_BCHW = self._through(self.up[level], level, y_BCHW)
        again_BCHW: torch.Tensor = self.head(y_BCHW)
        return again_BCHW

    def score_map(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Mean squared error over the bands, (B, H, W) float32, smoothed."""
        gap_BCHW = self(x_BCHW).float() - x_BCHW.float()
        with torch.autocast(x_BCHW.device.type, enabled=False):
            return smoothed(gap_BCHW.square().mean(1), self.config.smooth_px)

    def _through(self, layer: nn.Module, level: int, x_BCHW: torch.Tensor) -> torch.Tensor:
        if self.training and level < self.recompute and torch.is_grad_enabled():
            return cast(torch.Tensor, again(layer, x_BCHW))
        y_BCHW: torch.Tensor = layer(x_BCHW)
        return y_BCHW

    @classmethod
    def from_shapes(cls, shapes: dict[str, tuple[int, ...]]) -> Autoencoder | None:
        """An untrained network whose state dict has these names and shapes, or `None`: another kind."""
        first, narrow = shapes.get("down.0.conv.weight"), shapes.get("narrow.weight")
        if first is None or narrow is None or len(first) != 4 or len(narrow) != 4:
            return None
        depth = sum(1 for name in shapes if name.startswith("down.") and name.endswith("conv.weight"))
        if not 1 <= depth <= 6 or not 1 <= first[0] <= 512 or not 1 <= narrow[0] <= 1024:
            return None
        model = cls(first[1], 1, AutoencoderConfig(width=first[0], depth=depth, latent=narrow[0]))
        wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
        return model if wanted == shapes else None

"""U-Net for any number of bands (Ronneberger, Fischer and Brox, MICCAI 2015).

Differs from the paper: zero padding, so that input and output have the same size, and batch
normalization. No dropout: its masks would depend on how a batch is cut into micro-batches. Legend: B batch, C channel, H row, W column.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from caudal.core.config import Frozen
from caudal.models.norm import GroupedBatchNorm2d


class UNetConfig(Frozen):
    """`width` channels at full resolution, doubled at each of `depth` halvings.

    `group`: samples over which batch statistics are taken.
    """

    width: int = 16
    depth: int = 3
    group: int = 4


class _Block(nn.Module):
    """Twice: 3×3 convolution, normalization, ReLU."""

    def __init__(self, channels_in: int, channels_out: int, group: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
        self.norm1 = GroupedBatchNorm2d(channels_out, group)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.norm2 = GroupedBatchNorm2d(channels_out, group)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        x_BCHW = F.relu(self.norm1(self.conv1(x_BCHW)), inplace=True)
        return F.relu(self.norm2(self.conv2(x_BCHW)), inplace=True)


class UNet(nn.Module):
    """Scores of `classes` classes for every pixel of `bands` bands."""

    Config: ClassVar[type[UNetConfig]] = UNetConfig

    def __init__(self, bands: int, classes: int, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.width * 2**level for level in range(config.depth + 1)]
        ins = [bands, *widths[:-1]]
        self.down = nn.ModuleList(_Block(i, o, config.group) for i, o in zip(ins, widths, strict=True))
        pairs = list(zip(widths[1:], widths[:-1], strict=True))
        self.up = nn.ModuleList(nn.ConvTranspose2d(below, here, 2, stride=2) for below, here in pairs)
        self.merge = nn.ModuleList(_Block(2 * here, here, config.group) for _below, here in pairs)
        self.head = nn.Conv2d(config.width, classes, 1)

    @property
    def multiple_px(self) -> int:
        """Height and width of the input must be multiples of this."""
        return int(2**self.config.depth)

    @property
    def receptive_field_px(self) -> int:
        """How far from a pixel the input can still change its output."""
        depth = self.config.depth
        # Two 3×3 convolutions at level l reach 2·2^l pixels; pooling and upsampling only move within a
        # cell of the coarsest grid.
        convolutions = sum(2 * 2**level for level in range(depth + 1)) + sum(
            2 * 2**level for level in range(depth)
        )
        return int(convolutions + 2**depth - 1)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Scores `(B, classes, H, W)` of `(B, bands, H, W)`; H and W multiples of `multiple_px`."""
        skips = []
        for level, block in enumerate(self.down):
            x_BCHW = block(F.max_pool2d(x_BCHW, 2) if level else x_BCHW)
            skips.append(x_BCHW)
        x_BCHW = skips.pop()
        for up, merge, skip in zip(reversed(self.up), reversed(self.merge), reversed(skips), strict=True):
            x_BCHW = merge(torch.cat([skip, up(x_BCHW)], dim=1))
        scores: torch.Tensor = self.head(x_BCHW)
        return scores

    @classmethod
    def from_shapes(cls, shapes: dict[str, tuple[int, ...]]) -> UNet | None:
        """An untrained network whose state dict has these names and shapes, or `None`: another kind."""
        first, head = shapes.get("down.0.conv1.weight"), shapes.get("head.weight")
        if first is None or head is None or len(first) != 4 or len(head) != 4:
            return None
        depth = sum(1 for name in shapes if name.startswith("up.") and name.endswith(".weight"))
        model = cls(first[1], head[0], UNetConfig(width=first[0], depth=depth))
        wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
        return model if wanted == shapes else None

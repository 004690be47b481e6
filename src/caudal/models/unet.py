"""U-Net for any number of bands (Ronneberger, Fischer and Brox, MICCAI 2015).

Differs from the paper: zero padding, so that input and output have the same size, and batch
normalization. No dropout: its masks would depend on how a batch is cut into micro-batches. Legend: B batch,
C channel, H row, W column.
"""

from __future__ import annotations

from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from caudal.core.config import Frozen
from caudal.models.norm import GroupedBatchNorm2d
from caudal.models.recompute import again


class UNetConfig(Frozen):
    """`width` channels at the finest level, doubled at each of `depth` halvings.

    `stem` is the side of the squares of pixels that are folded into channels before the first level and
    unfolded after the last (Shi et al., CVPR 2016): with 2 the finest level has a quarter of the positions,
    each of which scores its four pixels. `group`: samples over which batch statistics are taken.
    """

    width: int = Field(16, ge=1, le=512)
    depth: int = Field(3, ge=1, le=6)
    stem: int = Field(2, ge=1, le=4)
    group: int = Field(4, ge=1)


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
        self.config, self.bands, self.classes = config, bands, classes
        self.recompute = 0
        """How many levels, from the finest on, compute their activations again instead of keeping them."""
        widths = [config.width * 2**level for level in range(config.depth + 1)]
        ins = [bands * config.stem**2, *widths[:-1]]
        self.down = nn.ModuleList(_Block(i, o, config.group) for i, o in zip(ins, widths, strict=True))
        pairs = list(zip(widths[1:], widths[:-1], strict=True))
        self.up = nn.ModuleList(nn.ConvTranspose2d(below, here, 2, stride=2) for below, here in pairs)
        self.merge = nn.ModuleList(_Block(2 * here, here, config.group) for _below, here in pairs)
        self.head = nn.Conv2d(config.width, classes * config.stem**2, 1)
        if config.stem > 1:
            # Weights alone would look like those of more bands and classes: this says by its shape.
            self.register_buffer("cell", torch.zeros(config.stem, config.stem))

    @property
    def recompute_levels(self) -> int:
        """The most that `recompute` can be."""
        return int(self.config.depth) + 1

    @property
    def multiple_px(self) -> int:
        """Height and width of the input must be multiples of this."""
        return int(self.config.stem * 2**self.config.depth)

    @property
    def receptive_field_px(self) -> int:
        """How far from a pixel the input can still change its output."""
        depth = self.config.depth
        # Two 3×3 convolutions at level l reach 2·2^l pixels; pooling and upsampling only move within a
        # cell of the coarsest grid.
        convolutions = sum(2 * 2**level for level in range(depth + 1)) + sum(
            2 * 2**level for level in range(depth)
        )
        return int(self.config.stem * (convolutions + 2**depth) - 1)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Scores `(B, classes, H, W)` of `(B, bands, H, W)`; H and W multiples of `multiple_px`."""
        if self.config.stem > 1:
            x_BCHW = F.pixel_unshuffle(x_BCHW, self.config.stem)
        skips = []
        for level, block in enumerate(self.down):
            x_BCHW = self._through(block, level, F.max_pool2d(x_BCHW, 2) if level else x_BCHW)
            skips.append(x_BCHW)
        x_BCHW = skips.pop()
        for level in reversed(range(self.config.depth)):
            joined_BCHW = torch.cat([skips.pop(), self.up[level](x_BCHW)], dim=1)
            x_BCHW = self._through(self.merge[level], level, joined_BCHW)
        scores: torch.Tensor = self.head(x_BCHW)
        return F.pixel_shuffle(scores, self.config.stem) if self.config.stem > 1 else scores

    def _through(self, block: nn.Module, level: int, x_BCHW: torch.Tensor) -> torch.Tensor:
        if self.training and level < self.recompute and torch.is_grad_enabled():
            return cast(torch.Tensor, again(block, x_BCHW))
        y_BCHW: torch.Tensor = block(x_BCHW)
        return y_BCHW

    @classmethod
    def from_shapes(cls, shapes: dict[str, tuple[int, ...]]) -> UNet | None:
        """An untrained network whose state dict has these names and shapes, or `None`: another kind."""
        first, head = shapes.get("down.0.conv1.weight"), shapes.get("head.weight")
        if first is None or head is None or len(first) != 4 or len(head) != 4:
            return None
        depth = sum(1 for name in shapes if name.startswith("up.") and name.endswith(".weight"))
        stem = shapes.get("cell", (1, 1))[0]
        if first[1] % stem**2 or head[0] % stem**2:
            return None
        config = UNetConfig(width=first[0], depth=depth, stem=stem)
        model = cls(first[1] // stem**2, head[0] // stem**2, config)
        wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
        return model if wanted == shapes else None

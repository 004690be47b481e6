"""A small residual network for whole images of any number of bands (He et al., CVPR 2016).

Made to be trained from scratch on hundreds of images: few weights, group-wise batch statistics, and
shortcuts that average before they thin out (He et al., "Bag of tricks", CVPR 2019). No dropout: its masks
would depend on how a batch is cut into micro-batches. Legend: B batch, C channel, H row, W column.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from caudal.core.config import Frozen
from caudal.models.norm import GroupedBatchNorm2d
from caudal.models.recompute import again


class ResidualConfig(Frozen):
    """`width` channels after the first convolution, doubled at each of `depth` halvings.

    `blocks` residual blocks at each level. `stem` is the stride of the first convolution, so the map that
    is averaged in the end has 1/(`stem`·2^`depth`) of the input's side. `group`: samples over which batch
    statistics are taken.
    """

    width: int = Field(16, ge=1, le=512)
    depth: int = Field(4, ge=1, le=6)
    blocks: int = Field(1, ge=1, le=12)
    stem: int = Field(2, ge=1, le=4)
    group: int = Field(4, ge=1)


class _Block(nn.Module):
    """Twice 3×3 convolution and normalization, added to the input or to its average."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, group: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.norm1 = GroupedBatchNorm2d(channels_out, group)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.norm2 = GroupedBatchNorm2d(channels_out, group)
        # A block begins as the identity: depth costs nothing until it is of use.
        nn.init.zeros_(self.norm2.weight)
        self.stride = stride
        self.changes = channels_in != channels_out
        if self.changes:
            self.conv_past = nn.Conv2d(channels_in, channels_out, 1, bias=False)
            self.norm_past = GroupedBatchNorm2d(channels_out, group)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        y_BCHW = F.relu(self.norm1(self.conv1(x_BCHW)), inplace=True)
        y_BCHW = self.norm2(self.conv2(y_BCHW))
        if self.stride > 1:
            # Rounded up, as the convolution does it: an input of one pixel stays one pixel.
            x_BCHW = F.avg_pool2d(x_BCHW, self.stride, ceil_mode=True)
        if self.changes:
            x_BCHW = self.norm_past(self.conv_past(x_BCHW))
        return F.relu(y_BCHW + x_BCHW, inplace=True)


class ResidualNet(nn.Module):
    """Scores of `outputs` classes for an image of `inputs` bands and of any size."""

    Config: ClassVar[type[ResidualConfig]] = ResidualConfig

    explained_layer = "levels"
    """The module whose output is the last map: what class activation maps are drawn from."""
    multiple_px = 1
    """Height and width of the input may be any."""

    def __init__(self, inputs: int, outputs: int, config: ResidualConfig) -> None:
        super().__init__()
        self.config, self.bands, self.classes = config, inputs, outputs
        self.recompute = 0
        """How many levels, from the finest on, compute their activations again instead of keeping them."""
        side = 2 * config.stem - 1
        self.conv1 = nn.Conv2d(inputs, config.width, side, config.stem, padding=side // 2, bias=False)
        self.norm1 = GroupedBatchNorm2d(config.width, config.group)
        widths = [config.width * 2**level for level in range(config.depth + 1)]
        self.levels = nn.Sequential(
            *(_level(widths[max(0, k - 1)], widths[k], 2 if k else 1, config) for k in range(len(widths)))
        )
        self.head = nn.Linear(widths[-1], outputs)
        nn.init.zeros_(self.head.bias)
        nn.init.normal_(self.head.weight, std=0.01)

    @property
    def outputs(self) -> int:
        """Classes that are scored."""
        return self.classes

    @property
    def recompute_levels(self) -> int:
        """The most that `recompute` can be."""
        return int(self.config.depth) + 1

    def features(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """The last map `(B, C, h, w)` of `(B, bands, H, W)`."""
        x_BCHW = F.relu(self.norm1(self.conv1(x_BCHW)), inplace=True)
        if not (self.training and self.recompute and torch.is_grad_enabled()):
            y_BCHW: torch.Tensor = self.levels(x_BCHW)
            return y_BCHW
        for level, blocks in enumerate(self.levels):
            x_BCHW = again(blocks, x_BCHW) if level < self.recompute else blocks(x_BCHW)
        return x_BCHW

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Scores `(B, outputs)` of `(B, bands, H, W)`."""
        scores_BK: torch.Tensor = self.head(self.features(x_BCHW).mean((2, 3)))
        return scores_BK

    @classmethod
    def from_shapes(cls, shapes: dict[str, tuple[int, ...]]) -> ResidualNet | None:
        """An untrained network whose state dict has these names and shapes, or `None`: another kind."""
        first, head = shapes.get("conv1.weight"), shapes.get("head.weight")
        if first is None or head is None or len(first) != 4 or len(head) != 2 or not first[0]:
            return None
        levels = {name.split(".")[1] for name in shapes if name.startswith("levels.")}
        blocks = {name.split(".")[2] for name in shapes if name.startswith("levels.0.")}
        sizes = {
            "width": first[0],
            "depth": len(levels) - 1,
            "blocks": len(blocks),
            "stem": first[2] // 2 + 1,
        }
        try:
            config = ResidualConfig(**sizes)
        except ValueError:
            return None
        model = cls(first[1], head[0], config)
        wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
        return model if wanted == shapes else None


def _level(channels_in: int, channels_out: int, stride: int, config: ResidualConfig) -> nn.Sequential:
    first = _Block(channels_in, channels_out, stride, config.group)
    rest = (_Block(channels_out, channels_out, 1, config.group) for _ in range(config.blocks - 1))
    return nn.Sequential(first, *rest)

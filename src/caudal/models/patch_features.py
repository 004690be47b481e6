"""Describes the surroundings of a pixel without anything learned: colour and texture at several scales.

For when no trained network is at hand. Any other callable with the same three properties can take its place
(`Features`), such as `net_features`. Legend: B batch, C band, D feature, H row, W column, h w rows and
columns of the feature map.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn

from caudal.core.config import Frozen
from caudal.core.seeds import generator

STRIDE_PX = 2
FILTER_PX = 5
SCALES = 2
TEXTURES = 12
REACH_PX = 9


class Features(Protocol):
    """What turns pixels into features: each position of the map describes a cell of `stride_px` pixels."""

    channels: int
    stride_px: int
    reach_px: int

    def __call__(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Features (B, D, H / stride, W / stride), float32; H and W are multiples of the stride."""
        ...


class MapLayer(Frozen):
    """A module by its `name`, and the map that it gives out."""

    name: str
    channels: int
    stride_px: int


class LocalFeatures(nn.Module):
    """Means of the bands near and further away, and how strongly random filters answer there.

    The filters are fixed by a seed, have mean 0 in each band (a flat surface gives 0, whatever its colour)
    and work at full and at half resolution. Their answers are taken without sign and averaged, as texture is
    not in the place of a single edge.
    """

    stride_px = STRIDE_PX
    reach_px = REACH_PX

    def __init__(self, bands: int) -> None:
        super().__init__()
        self.channels = 2 * bands + SCALES * TEXTURES
        self.filters: torch.Tensor
        self.register_buffer("filters", torch.from_numpy(_filters(bands)))

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Features (B, channels, H / 2, W / 2), float32."""
        x_BCHW = x_BCHW.float()
        near = _mean(F.avg_pool2d(x_BCHW, STRIDE_PX), 1)
        parts = [near, _mean(near, 2)]
        for scale in range(SCALES):
            finer = x_BCHW if scale == 0 else F.avg_pool2d(x_BCHW, 2)
            pad = FILTER_PX // 2
            answers = F.conv2d(F.pad(finer, (pad,) * 4, mode="replicate"), self.filters).abs_()
            parts.append(_mean(F.avg_pool2d(answers, STRIDE_PX) if scale == 0 else answers, 2))
        return torch.cat(parts, 1)


def _mean(x: torch.Tensor, reach: int) -> torch.Tensor:
    """The mean over a square of 2·reach + 1; the edge is repeated beyond the border."""
    return F.avg_pool2d(F.pad(x, (reach,) * 4, mode="replicate"), 2 * reach + 1, stride=1)


def _filters(bands: int) -> npt.NDArray[np.float32]:
    draws = generator(0, "texture filters", bands)
    filters = draws.standard_normal((TEXTURES, bands, FILTER_PX, FILTER_PX))
    filters -= filters.mean((2, 3), keepdims=True)
    length = np.sqrt((filters**2).sum((1, 2, 3), keepdims=True))
    return np.asarray(filters / length, np.float32)

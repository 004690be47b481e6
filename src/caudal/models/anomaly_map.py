"""What every model of anomalies gives: a score for each pixel, at the input's resolution; higher is odder.

The contract lives here, and what turns such a model into one that the engine runs on rasters. Legend: B
batch, C band, H row, W column.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import nn


@runtime_checkable
class AnomalyMap(Protocol):
    """A model that scores pixels. `forward` is what its training wants, not always the map."""

    bands: int

    @property
    def multiple_px(self) -> int:
        """Height and width of the input must be multiples of this."""
        ...

    @property
    def receptive_field_px(self) -> int:
        """How far from a pixel the input can still change its score."""
        ...

    def score_map(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Scores (B, H, W), float32, of normalized pixels (B, C, H, W)."""
        ...


@runtime_checkable
class Fitted(AnomalyMap, Protocol):
    """A model that learns from one pass over normal data, without a gradient.

    `begin` is told how many bytes may be held besides the batch that is given, `take` is called with every
    batch, `finish` leaves a model that can score and be stored.
    """

    def begin(self, budget_bytes: int) -> None:
        """Forget what was learned, and start.

        Raises:
            DoesNotFit: `budget_bytes` are too few for this model.
        """
        ...

    def take(self, x_BCHW: torch.Tensor, valid_BHW: torch.Tensor | None = None) -> None:
        """Learn from normalized normal pixels; those that are not valid count nowhere."""
        ...

    def finish(self) -> None:
        """Make of what was seen what scores.

        Raises:
            BadValues: no valid pixel was seen.
        """
        ...


class MapScores(nn.Module):
    """An anomaly model as the engine runs any model on rasters: `x_BCHW` to scores (B, 1, H, W)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        assert isinstance(model, AnomalyMap)
        self.model = model
        self.bands = model.bands
        self.multiple_px, self.receptive_field_px = model.multiple_px, model.receptive_field_px

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Scores (B, 1, H, W), float32."""
        scores: torch.Tensor = self.model.score_map(x_BCHW)
        return scores[:, None]


def in_full_precision(x: torch.Tensor) -> AbstractContextManager[None]:
    """A context without autocast: distances and covariances do not survive 8 bits of mantissa."""
    return torch.autocast(x.device.type, enabled=False)


def reach_px(sigma_px: float) -> int:
    """How far `smoothed` looks, in px."""
    return int(3 * sigma_px + 0.5)


def smoothed(scores_BHW: torch.Tensor, sigma_px: float) -> torch.Tensor:
    """A Gaussian of `sigma_px`, cut off at `reach_px`; the edge is repeated beyond the border."""
    reach = reach_px(sigma_px)
    if not reach:
        return scores_BHW
    away = torch.arange(-reach, reach + 1, device=scores_BHW.device, dtype=torch.float32)
    weights = torch.exp(-0.5 * (away / sigma_px) ** 2)
    weights = weights / weights.sum()
    padded = F.pad(scores_BHW[:, None].float(), (reach, reach, reach, reach), mode="replicate")
    across = F.conv2d(padded, weights.view(1, 1, 1, -1))
    return F.conv2d(across, weights.view(1, 1, -1, 1))[:, 0]

"""The detector of Reed and Yu (IEEE Trans. ASSP 38, 1990): how far a pixel's spectrum is from the background.

The distance is Mahalanobis': differences count by how rare they are among normal pixels. The background is
all normal pixels ("global") or a ring around each pixel ("local", see `local_rx`). Nothing is trained; mean
and covariance are taken in one pass. Legend: B batch, C band, H row, W column, N pixels.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import nn

from caudal.core.config import Frozen
from caudal.core.errors import BadValues, DoesNotFit
from caudal.core.messages import _
from caudal.core.units import Bytes
from caudal.models.anomaly_map import in_full_precision, reach_px, smoothed
from caudal.models.local_rx import local_scores
from caudal.models.moments import Moments, shrunk


class RxConfig(Frozen):
    """`background` is global or local. `guard_px` and `outer_px` are the odd sides of the two squares of the
    local ring: what is inside the smaller one is not background. `shrinkage` of covariances, found from the
    data without one. `smooth_px` is the deviation of the Gaussian over the map.
    """  # fmt: skip

    background: Literal["global", "local"] = "global"
    guard_px: int = Field(9, ge=1, le=255)
    outer_px: int = Field(25, ge=3, le=511)
    shrinkage: float | None = Field(None, ge=0, le=1)
    smooth_px: float = Field(1.0, ge=0, le=20)

    @field_validator("guard_px", "outer_px")
    @classmethod
    def _has_a_middle(cls, side_px: int) -> int:
        if side_px % 2 == 0:
            raise ValueError(f"{side_px} is even, and the square has a pixel in its middle")
        return side_px

    @field_validator("outer_px")
    @classmethod
    def _leaves_a_ring(cls, outer_px: int, info: ValidationInfo) -> int:
        guard_px = info.data.get("guard_px", 0)
        if outer_px <= guard_px:
            raise ValueError(f"{outer_px} is not above guard_px ({guard_px}), so there is no ring")
        return outer_px


class Rx(nn.Module):
    """Scores pixels of `bands` bands; `outputs` is 1, the map."""

    Config: ClassVar[type[RxConfig]] = RxConfig

    def __init__(self, bands: int, outputs: int, config: RxConfig) -> None:
        super().__init__()
        assert outputs == 1
        self.config, self.bands, self.classes = config, bands, outputs
        self.mean: torch.Tensor
        self.whitening: torch.Tensor
        self.register_buffer("mean", torch.zeros(bands))
        self.register_buffer("whitening", torch.eye(bands))
        self._moments: Moments | None = None

    @property
    def multiple_px(self) -> int:
        """Any size will do."""
        return 1

    @property
    def receptive_field_px(self) -> int:
        """How far from a pixel the input can still change its score."""
        ring = self.config.outer_px // 2 if self.config.background == "local" else 0
        return ring + reach_px(self.config.smooth_px)

    def begin(self, budget_bytes: int) -> None:
        """Start to gather; what is held is one covariance and 65 536 pixels in float64.

        Raises:
            DoesNotFit: `budget_bytes` are too few for that.
        """
        needed = Bytes(8 * self.bands * (4 * self.bands + 2 * (1 << 16)))
        if budget_bytes < needed:
            raise DoesNotFit(
                _("The statistics of {bands} bands need {needed}, and {budget} are left.").format(
                    bands=self.bands, needed=needed, budget=Bytes(budget_bytes)
                ),
                _("Give a larger budget with --ram."),
                needed=needed,
            )
        self._moments = Moments(self.bands)

    def take(self, x_BCHW: torch.Tensor, valid_BHW: torch.Tensor | None = None) -> None:
        """Count normal pixels, image by image."""
        assert self._moments is not None, "begin() comes first"
        for i, x_CHW in enumerate(x_BCHW):
            x_NC = x_CHW.flatten(1).T
            self._moments.add(x_NC if valid_BHW is None else x_NC[valid_BHW[i].flatten()])

    def finish(self) -> None:
        """Keep the mean, and the matrix that makes the covariance a unit ball.

        Raises:
            BadValues: no valid pixel was seen.
        """
        assert self._moments is not None
        moments, self._moments = self._moments, None
        if not moments.count:
            raise BadValues(
                _("No valid pixel was seen, so nothing is known of what is normal."),
                _("Check the nodata value of the images."),
            )
        covariance = shrunk(moments.covariance(), torch.tensor(moments.count), self.config.shrinkage)
        root = torch.linalg.cholesky(covariance)
        inverse = torch.linalg.solve_triangular(root, torch.eye(self.bands, dtype=torch.float64), upper=False)
        self.mean, self.whitening = moments.mean_C.to(self.mean), inverse.to(self.whitening)

    def score_map(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Squared distances (B, H, W), float32, smoothed."""
        with in_full_precision(x_BCHW):
            x_BCHW = x_BCHW.float()
            if self.config.background == "local":
                raw_BHW = torch.stack([self._local(x_CHW) for x_CHW in x_BCHW])
            else:
                away = x_BCHW - self.mean.float()[:, None, None]
                white = torch.einsum("dc,bchw->bdhw", self.whitening.float(), away)
                raw_BHW = white.square_().sum(1)
            return smoothed(raw_BHW, self.config.smooth_px)

    def _local(self, x_CHW: torch.Tensor) -> torch.Tensor:
        config = self.config
        # Centred, so that second moments lose no digits; the ring's own mean is what counts.
        centred = x_CHW - self.mean.float()[:, None, None]
        return local_scores(centred, config.guard_px, config.outer_px, config.shrinkage)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """The map: nothing else is learned from."""
        return self.score_map(x_BCHW)

    @classmethod
    def from_shapes(cls, shapes: dict[str, tuple[int, ...]]) -> Rx | None:
        """A detector without statistics whose state dict has these names and shapes, or `None`."""
        mean = shapes.get("mean", ())
        if len(mean) != 1 or shapes != {"mean": mean, "whitening": (*mean, *mean)}:
            return None
        return cls(mean[0], 1, RxConfig())
